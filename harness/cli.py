"""The command line: ``detbench COMMAND …``. Each command's work is in `harness.commands`.

Exit codes: 0 every planned cell ended as asked; 1 some did not; 2 the request was wrong or cannot
be carried out; 3 all were measured, but the machine was busy or changed (``--allow-tainted`` makes
it 0); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import __version__
from harness.cli_device import device
from harness.cli_lab import add_lab_commands
from harness.cli_parts import Commands, add_base, add_folders, add_setting
from harness.cli_parts import add as _add
from harness.cli_parts import add_json as _json
from harness.cli_parts import add_weights as _weights
from harness.cli_results import add_results_commands
from harness.errors import DetbenchError

FAILED, WRONG, TAINTED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can cause end in one sentence on standard error."""
    options = build_parser().parse_args(arguments)
    command = importlib.import_module(f"harness.commands.{options.module}")
    work: Callable[[argparse.Namespace], int] = getattr(command, options.command)
    try:
        code = work(options)
        sys.stdout.flush()
    except DetbenchError as error:
        print(f"detbench {options.command}: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="detbench",
        description="Export a detector every way there is, check each export, measure accuracy and"
        " latency here, and report which one to ship.",
    )
    parser.add_argument("--version", action="version", version=f"detbench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _run(commands)
    _export(commands)
    _artifact_commands(commands)
    _adopt(commands)
    _report(commands)
    add_results_commands(commands)
    _lint(commands)
    _list_and_show(commands)
    _fetch(commands)
    _convert(commands)
    _train(commands)
    add_lab_commands(commands)
    _doctor(commands)
    device(commands)
    return parser


def _run(commands: Commands) -> None:
    parser = _add(commands, "run", "run", "Export what is missing, check, score, time, and report.")
    parser.add_argument("matrix", nargs="?", type=Path, help="a matrix file in YAML")
    group = parser.add_argument_group("what to measure (over the matrix file)")
    group.add_argument("--models", metavar="A,B:key=value", help="models, with options after ':'")
    group.add_argument(
        "--recipes", metavar="none,prune:0.8", help="what is done to the network before its export"
    )
    group.add_argument("--exporters", metavar="A,B", help="default: all that are installed")
    group.add_argument("--runners", metavar="A,B", help="default: all that are installed")
    group.add_argument("--measures", metavar="accuracy,latency")
    group.add_argument(
        "--artifact",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="an artifact's folder or your own .onnx or .tflite file, alone or beside --models",
    )
    _weights(group)
    _measuring(group)
    _running(parser)
    parser.add_argument("--no-report", action="store_true", help="write records only")
    _no_pictures(parser)


def _no_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-pictures",
        action="store_true",
        help="no pictures of the data set in the report, for example where you may not share them",
    )


def _measuring(group: argparse._ActionsContainer) -> None:
    group.add_argument("--threads", metavar="1,2,4", help="default: 1 and the physical cores")
    group.add_argument(
        "--target",
        "--targets",
        metavar="cpu,KEY@HOST:PORT",
        help="where to run: here (cpu), or other machines, for runners such as tvm_rpc",
    )
    group.add_argument("--batches", metavar="1,4", help="images in a call; default: 1")
    group.add_argument("--cpus", metavar="0,2-3", help="stay on these cores, as taskset does")
    group.add_argument("--pace", metavar="30fps", help="time at a camera's rate too, or at 33ms")
    group.add_argument("--sustain", metavar="10min", help="run each export for so long, too")
    group.add_argument("--profile", action="store_true", help="time by operator too")
    group.add_argument("--data", metavar="NAME", help="see detbench list datasets")
    group.add_argument("--images", type=int, metavar="N", help="how many images are scored")
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read or whose annotation cannot be true; the record"
        " counts them",
    )
    group.add_argument(
        "--audit", action="store_true", help="hold the COCO figures to pycocotools' own"
    )
    group.add_argument(
        "--until",
        metavar="'drop < 1 AP'",
        help="end a compressed model's evaluation when this is answered: points of AP, AP50, VOC07"
        " or VOC12 against its float parent",
    )
    group.add_argument(
        "--decoding",
        metavar="POLICY",
        help="decode by this policy in place of the model's own, such as pytorch-ssd",
    )
    group.add_argument("--tier", choices=["smoke", "rapid", "quick", "normal"])
    add_setting(group, "any key of the matrix, such as latency.rounds=3 or timeout_s=900")


def _running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument("--name", help="name of the run below results/<machine>/")
    add_base(group)
    group.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="score each cell in N processes, by image ranges (default: no core is idle)",
    )
    group.add_argument(
        "--cluster", metavar="tcp://HOST:PORT", help="score the shards on a Dask cluster"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print the plan and how long it will take"
    )
    group.add_argument(
        "--allow-tainted", action="store_true", help="exit 0 though the machine was busy"
    )
    group.add_argument("--quiet", action="store_true", help="no progress")
    _json(parser)


def _export(commands: Commands) -> None:
    parser = _add(
        commands,
        "export",
        "export",
        "Export one model into a folder that needs nothing else to be run.",
    )
    parser.add_argument("model", help="name or name:key=value, such as mb2_ssd_lite")
    parser.add_argument("exporter", help="name or name:key=value, such as onnx_int8")
    parser.add_argument("--recipe", help="done to the network first, such as prune:0.8")
    parser.add_argument(
        "--tune",
        metavar="15min",
        help="of TVM's exporters: time kernels for so long, or for 500trials, and take the fastest",
    )
    parser.add_argument(
        "--keep-float",
        metavar="LAYERS",
        help="layers that an int8 exporter leaves in float, such as 'extras.0.*,base_net.0.0'",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for the artifact")
    parser.add_argument("--force", action="store_true", help="export again though it is cached")
    _weights(parser)
    add_setting(parser)
    _json(parser)


def _artifact_commands(commands: Commands) -> None:
    texts = {
        "eval": "Score an artifact: VOC07, VOC12 and COCO mAP with intervals.",
        "latency": "Time an artifact over thread counts.",
        "parity": "Compare an artifact's outputs with the float network's golden ones.",
    }
    for name, text in texts.items():
        parser = _add(commands, name, "single", text)
        parser.add_argument(
            "artifact", type=Path, help="a folder made by detbench export, or your own file"
        )
        if name == "parity":
            parser.add_argument(
                "--layers",
                nargs="+",
                type=Path,
                metavar="DIR",
                help="show layer by layer where these exports of the same model leave ARTIFACT",
            )
        _manifest(parser)
        parser.add_argument("--runners", metavar="A,B", help="default: all that are installed")
        if name == "eval":
            parser.add_argument(
                "--against",
                type=Path,
                metavar="DIR",
                help="the float export of the same model: say what changed, labels or not",
            )
        _measuring(parser)
        _running(parser)


def _manifest(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE.yaml",
        help="how to feed and decode your own file; default: the file's name with .yaml",
    )


def _adopt(commands: Commands) -> None:
    parser = _add(commands, "adopt", "adopt", "Make an artifact of your own .onnx or .tflite file.")
    parser.add_argument("file", type=Path)
    _manifest(parser)
    parser.add_argument("-o", "--output", type=Path, help="folder for the artifact")
    _json(parser)


def _report(commands: Commands) -> None:
    parser = _add(commands, "report", "report", "Make HTML, Markdown and CSV from records.")
    add_folders(parser)
    parser.add_argument("-o", "--output", type=Path, help="folder to write to")
    parser.add_argument("--title", default="detbench report")
    _no_pictures(parser)
    _json(parser)


def _lint(commands: Commands) -> None:
    parser = _add(
        commands, "lint", "lint", "Check the method behind figures: what is wrong, and the remedy."
    )
    parser.add_argument(
        "path", nargs="?", type=Path, help="a results folder, an artifact's folder, or a record"
    )
    parser.add_argument("--rules", action="store_true", help="print every rule")
    _json(parser)


def _list_and_show(commands: Commands) -> None:
    parser = _add(commands, "list", "show", "List what there is.")
    parser.add_argument(
        "kind", choices=["models", "recipes", "exporters", "runners", "datasets", "weights"]
    )
    parser.add_argument(
        "--profile", action="store_true", help="of models: what each costs on paper (needs torch)"
    )
    _json(parser)
    text = "Show a model: input, priors, classes, MACs, sizes; or what is in a data set."
    parser = _add(commands, "show", "show", text)
    parser.add_argument("model", help="name or name:key=value; or the word dataset")
    parser.add_argument("path", nargs="?", help="of a data set: voc:/path:val, or its folder")
    _json(parser)


def _fetch(commands: Commands) -> None:
    parser = _add(
        commands, "fetch", "fetch", "Fetch published weights or a public data set, and verify it."
    )
    sets = ["voc2007", "voc2012", "coco-val2017", "open-images"]
    parser.add_argument("what", choices=["weights", *sets])
    parser.add_argument("names", nargs="*", help="of weights: see detbench list weights")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="where a data set goes; default: the cache"
    )
    group = parser.add_argument_group("of open-images")
    group.add_argument("--classes", metavar="A,B", help="as Open Images names them")
    group.add_argument("--split", default="validation", help="train, validation or test")
    group.add_argument("--images", type=int, metavar="N", help="at most so many")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _convert(commands: Commands) -> None:
    parser = _add(
        commands,
        "convert",
        "convert",
        "Write a checkpoint as ours, such as a frozen graph of TensorFlow.",
    )
    parser.add_argument("model", help="name or name:key=value")
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="a .pth, .pt or .safetensors file; for ssdlite_mobilenet_v2_coco a frozen graph (.pb),"
        " a saved model's folder or a checkpoint's .index",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.safetensors", help="what to write"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="its classes, one a line, background first"
    )
    _json(parser)


def _train(commands: Commands) -> None:
    parser = _add(commands, "train", "train", "Train a model and write a checkpoint.")
    parser.add_argument("model", nargs="?", help="name or name:key=value")
    parser.add_argument("-o", "--output", type=Path, help="folder of the training")
    parser.add_argument("--data", metavar="voc:/path:train", help="what to learn; default: shapes")
    parser.add_argument("--val", metavar="voc:/path:val", help="what is held out to score on")
    parser.add_argument(
        "--labels", metavar="FILE", help="its classes, one a line, background first"
    )
    parser.add_argument(
        "--start-from", metavar="FILE", help="a checkpoint, a published name, or 'shipped'"
    )
    parser.add_argument("--device", metavar="cuda", help="default: cpu")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that prepare images")
    parser.add_argument("--seed", type=int, metavar="N")
    add_setting(parser, "a training option, as --list-options shows them")
    parser.add_argument("--list-options", action="store_true", help="all training options")
    _json(parser)


def _doctor(commands: Commands) -> None:
    parser = _add(
        commands, "doctor", "doctor", "Check this machine: frameworks, compiler, folders, clocks."
    )
    parser.add_argument(
        "--speed", action="store_true", help="measure what it can compute and copy, too: seconds"
    )
    _json(parser)
