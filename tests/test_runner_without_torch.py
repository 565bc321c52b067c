"""A device needs the core and one runtime: neither torch nor TensorFlow.

A fresh virtual environment gets the core with LiteRT or TVM's runtime, and an artifact that was
exported here runs there: loaded and verified, prepared, inferred, decoded.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import artifacts
from harness.decode import decode
from harness.images import Preprocessor
from harness.interfaces import EXPORTERS, RUNNERS, ExportJob, RawOutputs, RunOptions
from harness.records import Artifact, ModelSpec

pytest.importorskip("ai_edge_litert", reason="the runtime under test")
torch = pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tensorflow", reason="makes the file that is run here and there")
pytest.importorskip("tvm", reason="makes the module that is run here and there")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("harness", "models", "exporters", "runners", "pyproject.toml", "README.md", "LICENSE")
FRAMEWORKS = ("torch", "tensorflow", "onnxruntime", "ai_edge_litert", "tvm", "matplotlib")
RUNTIMES = {
    "tflite_float": ("litert", "litert_cpu", "ai_edge_litert"),
    "tflite_int8": ("litert", "litert_cpu", "ai_edge_litert"),
    "tvm_dense": ("tvm-runtime", "tvm_cpu", "tvm"),
}
"""Extra, runner and module that run what an exporter makes."""

ON_THE_DEVICE = """
import importlib.util, sys
from pathlib import Path
import numpy as np
from harness import artifacts
from harness.decode import decode
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, RunOptions

folder, answers = map(Path, sys.argv[1:3])
present = [name for name in sys.argv[4:] if importlib.util.find_spec(name) is not None]
assert not present, f"{present} can be imported"
assert "site-packages" in artifacts.__file__, artifacts.__file__
artifact = artifacts.load(folder)
image = artifacts.golden(folder).images[0]
prepare = Preprocessor(artifact.image, artifact.inputs[0])
runner = RUNNERS.get(sys.argv[3])()
with runner.open(artifact, folder, RunOptions(threads=1)) as session:
    raw = session.run(prepare(image))
(found,) = decode(raw, priors=artifacts.priors(folder), decoding=artifact.decoding,
                  sizes=[image.shape[:2]], tensors=artifact.outputs)
np.savez(answers, logits=raw.logits, offsets=raw.offsets, boxes=found.boxes,
         labels=found.labels, scores=found.scores)
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Python of a virtual environment that holds the core and a runtime, by the runtime's extra."""
    return functools.cache(lambda extra: _environment(tmp_path_factory.mktemp("device"), extra))


def _environment(folder: Path, extra: str) -> Path:
    source = folder / "source"  # pip builds inside the tree that it installs
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    _call(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    _call(str(python), "-m", "pip", "install", "--quiet", f"{source}[{extra}]")
    return python


def _call(*command: str) -> None:
    """Run to the end, with nothing that points Python at this environment's packages."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, env=clean, cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module", params=RUNTIMES)
def published(
    request: pytest.FixtureRequest,
    tiny_spec: ModelSpec,
    tiny_calibration: Callable[[], Iterator[NDArray[np.float32]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An artifact as `detbench export` leaves it."""
    staging = tmp_path_factory.mktemp("staging") / "artifact"
    staging.mkdir()
    exporter = EXPORTERS.get(request.param)()
    options = {**exporter.options, **({"io": "int8"} if exporter.calibrates else {})}
    network = tiny_spec.build()
    made = exporter.export(
        ExportJob(
            spec=tiny_spec,
            network=network,
            options=options,
            calibration=tiny_calibration,
            folder=staging,
        )
    )
    images = np.random.default_rng(6).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        floats = (images.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
        answers = RawOutputs(*(head.numpy() for head in network(torch.from_numpy(floats))))
    artifacts.write_extras(staging, tiny_spec.priors, artifacts.Golden(images, answers))
    files = artifacts.entries(staging, made.files)
    artifact = Artifact(
        model=tiny_spec.name,
        model_options={},
        weights_sha256="",
        weights_source="seeded",
        recipe="none",
        exporter=exporter.name,
        format=exporter.format,
        precision=exporter.precision,
        options=options,
        files=files,
        sha256=artifacts.model_digest(files),
        size_bytes=sum(entry.size_bytes for entry in files if entry.role == "model"),
        inputs=made.inputs,
        outputs=made.outputs,
        image=tiny_spec.image,
        decoding=tiny_spec.decoding,
        labels=tiny_spec.labels,
        calibration=None,
        toolchain={},
        fingerprint="",
        created_at=dt.datetime.now(dt.UTC).isoformat(),
        export_ns=0,
    )
    folder = staging.with_name("published")
    artifacts.publish(staging, artifact, folder)
    return folder


def here(folder: Path) -> dict[str, NDArray[Any]]:
    """What this environment answers to the golden image."""
    artifact = artifacts.load(folder)
    image = artifacts.golden(folder).images[0]
    prepare = Preprocessor(artifact.image, artifact.inputs[0])
    with RUNNERS.get(RUNTIMES[artifact.exporter][1])().open(
        artifact, folder, RunOptions(threads=1)
    ) as session:
        raw = session.run(prepare(image))
    logits, offsets = artifact.outputs
    (found,) = decode(
        raw,
        priors=artifacts.priors(folder),
        decoding=artifact.decoding,
        sizes=[(image.shape[0], image.shape[1])],
        tensors=(logits, offsets),
    )
    return {**raw._asdict(), **found._asdict()}


def test_an_artifact_runs_where_there_is_no_torch(
    device: Callable[[str], Path], published: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.npz"
    extra, runner, module = RUNTIMES[artifacts.load(published).exporter]
    absent = [name for name in FRAMEWORKS if name != module]
    python = str(device(extra))
    _call(python, "-I", "-c", ON_THE_DEVICE, str(published), str(answers), runner, *absent)
    expected = here(published)
    with np.load(answers) as got:
        assert set(got) == set(expected)
        assert len(got["boxes"]) > 0
        for name, values in expected.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_damaged_artifact_is_refused_there_too(
    device: Callable[[str], Path], published: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    artifact = artifacts.load(copy)
    extra, runner, _ = RUNTIMES[artifact.exporter]
    (model,) = (entry.path for entry in artifact.files if entry.role == "model")
    with (copy / model).open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x7f")
    python, answers = str(device(extra)), str(tmp_path / "answers.npz")
    with pytest.raises(AssertionError, match=r"ArtifactDamaged: .*SHA-256"):
        _call(python, "-I", "-c", ON_THE_DEVICE, str(copy), answers, runner)


@pytest.mark.parametrize("extra", ["litert", "tvm-runtime"])
def test_the_command_line_works_there(device: Callable[[str], Path], extra: str) -> None:
    _call(str(device(extra).with_name("detbench")), "list", "runners")
