"""A bundle runs where there are numpy and one runtime; its stand-ins are faithful."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import psutil
import pytest

from harness import artifacts, results
from harness.bundle.pack import pack
from harness.cli import main
from harness.errors import BadInput
from harness.images import Preprocessor
from harness.interfaces import RawOutputs
from harness.records import ModelSpec, encode
from tests.report_runs import MB2
from tests.run_folders import write_run

ROOT = Path(__file__).resolve().parents[1]
SHIMS = ROOT / "harness" / "bundle" / "shims"

AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import msgspec
assert msgspec.__file__.startswith(sys.argv[1]), msgspec.__file__
from harness.records import RunRecord, Artifact, decode, encode
from harness.results import Run, read_sealed
from harness.seal import seal
from harness.errors import ResultsError
kinds = {"cells": RunRecord, "artifacts": Artifact}
for path in map(Path, sys.argv[2:]):
    kind = kinds.get(path.parent.name, Run)
    data = path.read_bytes()
    again = seal(encode(decode(data, kind, path)))
    if again != data:
        print(f"{path}: other bytes")
    for broken in (data.replace(b'"threads": 1', b'"threads": "one"'),
                   data.replace(b'"schema": 1', b'"schema": 1, "new": 2')):
        try:
            decode(broken, kind, path)
        except ResultsError as error:
            print(str(error).partition("(")[2].partition(")")[0].partition(" - at")[0])
        else:
            if broken != data:
                print(f"{path}: accepted")
"""


def test_the_stand_in_for_msgspec_reads_and_writes_the_same_records(tmp_path: Path) -> None:
    run = write_run(tmp_path, models=[MB2])
    files = [run / "run.json", *sorted(run.glob("cells/*.json")), *run.glob("artifacts/*.json")]
    command = [sys.executable, "-c", AGAIN, str(SHIMS), *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = set(done.stdout.splitlines())
    assert said == {
        "Expected `int`, got `str`",
        "Object contains unknown field `new`",
    }


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", SHIMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["msgspec", "psutil"])
def test_a_stand_in_has_everything_that_is_used(name: str) -> None:
    module, used = _module(name), set()
    for folder in ("harness", "runners"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                inner = node.value if isinstance(node, ast.Attribute) else None
                if isinstance(inner, ast.Name) and inner.id == name:
                    used.add(node.attr)
    assert {attribute for attribute in used if not hasattr(module, attribute)} == set()


NOTHING_ELSE = """
import sys, importlib.abc
class Bare(importlib.abc.MetaPathFinder):
    known = {*sys.stdlib_module_names, "numpy", "harness", "runners"}
    lent = set(sys.argv[2:])
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in self.known | self.lent:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Bare())
sys.path.insert(0, sys.argv[1])
import harness.bundle.device, harness.worker, harness.measuring, harness.evaluation
"""


def test_the_devices_path_needs_numpy_and_the_stand_ins_alone() -> None:
    lent = [path.stem for path in SHIMS.glob("*.py")]
    command = [sys.executable, "-c", NOTHING_ELSE, str(SHIMS), *lent]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in reads Linux' files")
def test_the_stand_in_for_psutil_reads_the_same() -> None:
    module = _module("psutil")
    assert module.cpu_count() == psutil.cpu_count()
    assert module.cpu_count(logical=False) == psutil.cpu_count(logical=False)
    assert module.virtual_memory().total == psutil.virtual_memory().total
    mine, real = module.Process(), psutil.Process()
    assert mine.memory_info().rss == pytest.approx(real.memory_info().rss, rel=0.1)
    assert {t.id for t in mine.threads()} == {t.id for t in real.threads()}
    assert module.cpu_times().idle == pytest.approx(psutil.cpu_times().idle, rel=0.05, abs=5)
    assert module.cpu_times()._fields == psutil.cpu_times()._fields


@pytest.fixture(scope="session")
def packed(
    tiny_spec: ModelSpec, export_artifact: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An ONNX artifact with golden answers, and a bundle of it."""
    pytest.importorskip("onnxruntime", reason="runs the artifact")
    pytest.importorskip("onnx", reason="makes the artifact")
    torch = pytest.importorskip("torch", reason="makes the artifact")
    artifact, exported = export_artifact("onnx_float", tiny_spec)  # type: ignore[operator]  # a fixture's function
    folder = tmp_path_factory.mktemp("bundle") / "artifact"
    shutil.copytree(exported, folder)
    size = (8, tiny_spec.image.height, tiny_spec.image.width, 3)
    images = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    prepare = Preprocessor(tiny_spec.image, artifact.inputs[0])
    with torch.no_grad():
        network = tiny_spec.build()
        answers = [network(torch.from_numpy(prepare(image))) for image in images]
    logits, offsets = (np.concatenate([a[i].numpy() for a in answers]) for i in (0, 1))
    golden = artifacts.Golden(images, RawOutputs(logits, offsets))
    artifacts.write_extras(folder, tiny_spec.priors, golden)
    models = [entry.path for entry in artifact.files if entry.role == "model"]
    files = artifacts.entries(folder, models)
    whole = msgspec.structs.replace(artifact, files=files)
    (folder / artifacts.MANIFEST).write_bytes(encode(whole))
    bundle = folder.parent / "bundle.zip"
    assert main(["pack", str(folder), "-o", str(bundle)]) == 0
    return folder, bundle


def test_a_bundle_is_the_same_bytes_each_time(packed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, bundle = packed
    pack([folder], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    names = set(zipfile.ZipFile(bundle).namelist())
    assert {"__main__.py", "bundle.json", "harness/seal.py", "runners/ort_cpu.py"} <= names
    assert not any(name.startswith(("models/", "exporters/", "tests/")) for name in names)
    assert "runners/torch_cpu.py" not in names


def test_what_cannot_be_packed_is_named(packed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = packed
    with pytest.raises(BadInput, match="given twice"):
        pack([folder, folder], tmp_path / "x.zip")
    assert main(["pack", str(tmp_path), "-o", str(tmp_path / "x.zip")]) == 2
    assert not (tmp_path / "x.zip").exists()


def _bare_environment(folder: Path) -> Path:
    """A virtual environment with numpy and ONNX Runtime, and nothing else of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in ("numpy", "onnxruntime", "flatbuffers", "protobuf", "packaging"):
        distribution = metadata.distribution(name)
        tops = {str(file).split("/")[0] for file in distribution.files or ()}
        for top in tops - {"..", "bin"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_device_with_numpy_and_a_runtime_measures_and_its_records_come_home(
    packed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bundle = packed
    python = _bare_environment(tmp_path / "venv")
    elsewhere = tmp_path / "some where"
    elsewhere.mkdir()
    absent = "torch msgspec psutil PIL yaml tqdm tensorflow onnx"
    check = f"import importlib.util as u; print([n for n in {absent.split()} if u.find_spec(n)])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    run = {"cwd": elsewhere, "env": environment, "capture_output": True, "text": True}
    assert subprocess.run([python, "-c", check], **run).stdout.strip() == "[]"  # type: ignore[call-overload]  # one set of options for all calls
    command = [python, bundle, "run", "--out", "out", "--tier", "smoke", "--threads", "1,2"]
    done = subprocess.run([*command, "--allow-tainted"], **run)  # type: ignore[call-overload]  # as above
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 cells ended as asked" in done.stdout or "tainted" in done.stdout
    (measured,) = results.find_runs([elsewhere / "out"])
    _, plan, records, _ = results.load_run(measured)
    artifact = artifacts.load(folder)
    assert {r.artifact_sha256 for r in records} == {artifact.sha256}
    assert {(r.cell.measure, r.cell.threads) for r in records} == {
        ("parity", 1),
        ("latency", 1),
        ("latency", 2),
    }
    revision = json.loads(zipfile.ZipFile(bundle).read("bundle.json"))["git_revision"]
    assert {r.git_revision for r in records} == {revision}
    parity = next(r for r in records if r.cell.measure == "parity")
    sqnr = parity.measurement("parity.logits.sqnr_db")
    assert sqnr is not None
    assert (sqnr.value or 0) > 60
    timed = [r.measurement("latency.inference") for r in records if r.cell.measure == "latency"]
    assert all(m is not None and len(m.samples) >= 12 for m in timed)
    home = tmp_path / "results"
    assert main(["results", "add", str(elsewhere / "out"), "--results", str(home)]) == 0
    assert main(["verify", str(home)]) == 0, capsys.readouterr().out
    assert len(plan.plan) == 3


@pytest.mark.slow
def test_a_damaged_bundle_and_one_without_a_runtime_say_so(
    packed: tuple[Path, Path], tmp_path: Path
) -> None:
    _, bundle = packed
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data + b"#" if name == "harness/decode.py" else data)
    done = subprocess.run([sys.executable, other, "list"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "harness/decode.py has other bytes than were packed" in done.stdout
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [bare / "bin" / "python", bundle, "run"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert "pip install numpy onnxruntime" in done.stdout
