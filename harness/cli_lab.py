"""The parsers of commands that look for what can be left out of a network."""

from __future__ import annotations

from pathlib import Path

from harness.cli_parts import Commands, add, add_base, add_json, add_setting, add_weights


def add_lab_commands(commands: Commands) -> None:
    """Which layers can be pruned, and which way to compress and export is best."""
    _sensitivity(commands)
    _search(commands)
    _mixed(commands)


def _sensitivity(commands: Commands) -> None:
    parser = add(
        commands,
        "sensitivity",
        "sensitivity",
        "Prune one layer after another and say what each costs. A stopped scan goes on.",
    )
    parser.add_argument("model", help="name or name:key=value, such as mb2_ssd_lite")
    add_weights(parser)
    parser.add_argument(
        "--data",
        default="shapes:calibration",
        help="scored images, better not those of the final score; default: %(default)s",
    )
    parser.add_argument("--images", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--sparsities",
        default="0.3,0.5,0.7,0.8,0.9",
        metavar="A,B",
        help="of each layer, default: %(default)s",
    )
    parser.add_argument(
        "--pattern", default="1x1", help="what is pruned together: 1x1, 4x1, 16x1; default: 1x1"
    )
    parser.add_argument(
        "--target-drop",
        type=float,
        metavar="AP",
        help="choose a sparsity for each layer so that the network loses at most so many points",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for what was found"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_json(parser)


def _search(commands: Commands) -> None:
    parser = add(
        commands,
        "search",
        "search",
        "Look for recipe, exporter and runner that give most within limits. A stopped search that"
        " is started again goes on.",
    )
    parser.add_argument("model", help="name or name:key=value, such as mb2_ssd_lite")
    parser.add_argument(
        "--recipes",
        default="none,prune:0.3..0.9,kmeans:4..8",
        metavar="A,B",
        help="chains; a number may be a range, drawn anew for each trial; default: %(default)s",
    )
    parser.add_argument("--exporters", metavar="A,B", help="default: all that are installed")
    parser.add_argument("--runners", metavar="A,B", help="default: all that are installed")
    add_weights(parser)
    parser.add_argument("--data", metavar="NAME", help="see detbench list datasets")
    parser.add_argument("--images", type=int, metavar="N", help="most that a trial is scored on")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-latency-ms", type=float, metavar="MS", help="of one image, here")
    limits.add_argument("--max-size-mb", type=float, metavar="MB", help="of the exported file")
    limits.add_argument(
        "--max-drop",
        type=float,
        metavar="AP",
        help="points of VOC12 mAP against the float network, by a paired test",
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--name", help="name of the run below results/<machine>/")
    add_base(parser)
    add_setting(parser, "any key of the matrix, such as latency.tier=quick")
    parser.add_argument("--no-report", action="store_true", help="write records only")
    parser.add_argument("--no-pictures", action="store_true", help="no pictures in the report")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_json(parser)


def _mixed(commands: Commands) -> None:
    parser = add(
        commands,
        "mixed",
        "mixed",
        "Find the fewest layers to keep in float so that an int8 export loses little enough.",
    )
    parser.add_argument("model", help="name or name:key=value, such as mb2_ssd_lite")
    parser.add_argument("exporter", help="an int8 exporter, name or name:key=value")
    parser.add_argument("--recipe", help="done to the network first, such as prune:0.8")
    parser.add_argument(
        "--drop",
        type=float,
        default=1.0,
        metavar="AP",
        help="points of VOC12 mAP that may be lost; default: %(default)s",
    )
    add_weights(parser)
    parser.add_argument("--data", metavar="NAME", help="see detbench list datasets")
    parser.add_argument("--images", type=int, metavar="N", help="how many are scored")
    add_setting(parser, "any key of the matrix, such as calibration.images=200")
    add_json(parser)
