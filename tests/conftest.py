"""Fixtures that more than one test file uses."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.support import deterministic
from exporters._tvm_target import CpuTarget, resolve
from harness import artifacts
from harness.interfaces import EXPORTERS, MODELS, Exported, Exporter, ExportJob, RawOutputs
from harness.records import Artifact, Cell, Decoding, ImageSpec, ModelSpec, Scalar, Source
from harness.tasks import MeasureTask
from tests.painted import paint, write_tiny_ssd

Images = NDArray[np.float32]
Calibration = Callable[[], Iterator[Images]]
MakeArtifact = Callable[..., tuple[Artifact, Path]]

TINY_LABELS = ("background", "circle", "square", "star", "cross")
TINY_SIZE = 32


@pytest.fixture(autouse=True)
def _same_cores() -> Iterator[None]:
    """TVM's thread pool binds its caller to a core; later tests must not inherit that."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if before is not None:
        os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference facts beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference facts are not at {folder}")
    return folder


def _tiny_images(seed: int, count: int) -> Iterator[Images]:
    """Smooth patches with noise, float32 (1, 3, 32, 32), about -1..1 like normalised photos."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.uniform(-1, 1, (3, 4, 4))
        smooth = coarse.repeat(TINY_SIZE // 4, axis=1).repeat(TINY_SIZE // 4, axis=2)
        noisy = smooth + rng.normal(0, 0.1, smooth.shape)
        yield noisy[None].astype(np.float32)


@pytest.fixture(scope="session")
def tiny_calibration() -> Calibration:
    """Makes a fresh pass over 16 images, the same ones each time."""
    return lambda: _tiny_images(seed=1, count=16)


@pytest.fixture(scope="session")
def tiny_images() -> Images:
    """Eight images that are not in the calibration list, float32 (8, 3, 32, 32)."""
    return np.concatenate(list(_tiny_images(seed=2, count=8)))


def _tiny_priors() -> Images:
    """Two square priors per cell of an 8 x 8 and a 4 x 4 map, (160, 4) as (cx, cy, w, h)."""
    rows = [
        ((x + 0.5) / cells, (y + 0.5) / cells, size, size)
        for cells, sizes in ((8, (0.15, 0.25)), (4, (0.4, 0.6)))
        for y in range(cells)
        for x in range(cells)
        for size in sizes
    ]
    return np.array(rows, dtype=np.float32)


def _build_tiny() -> Any:
    """The tiny detector in eval mode: seeded weights, batch-norm statistics of real activations.

    It holds every construction of the shipped models once: convolutions of stride 2 (symmetric
    padding), depthwise ones of stride 1 and 2, ReLU6, a linear bottleneck with a residual add, a
    depthwise-separable head, a plain head, permute + reshape + cat.
    """
    import torch
    from torch import Tensor, nn

    def unit(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )

    def head(inputs: int, outputs: int) -> Any:
        return nn.Sequential(
            unit(inputs, inputs, kernel=3, groups=inputs), nn.Conv2d(inputs, outputs, 1)
        )

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            classes = len(TINY_LABELS)
            self.stem = unit(3, 8, kernel=3, stride=2)
            self.bottleneck = nn.Sequential(
                unit(8, 24, kernel=1),
                unit(24, 24, kernel=3, groups=24),
                nn.Conv2d(24, 8, 1, bias=False),
                nn.BatchNorm2d(8),
            )
            self.first = nn.Sequential(
                unit(8, 8, kernel=3, stride=2, groups=8), unit(8, 16, kernel=1)
            )
            self.second = nn.Sequential(
                unit(16, 16, kernel=3, stride=2, groups=16), unit(16, 24, kernel=1)
            )
            self.class_heads = nn.ModuleList([head(16, 2 * classes), nn.Conv2d(24, 2 * classes, 1)])
            self.box_heads = nn.ModuleList([head(16, 2 * 4), nn.Conv2d(24, 2 * 4, 1)])

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(image)
            x = x + self.bottleneck(x)
            first = self.first(x)
            maps = (first, self.second(first))
            logits = self._join(self.class_heads, maps, len(TINY_LABELS))
            return logits, self._join(self.box_heads, maps, 4)

        @staticmethod
        def _join(heads: Any, maps: tuple[Tensor, ...], width: int) -> Tensor:
            parts = [
                head(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)
                for head, x in zip(heads, maps, strict=True)
            ]
            return torch.cat(parts, dim=1)

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = Tiny()
        for name, values in network.named_parameters():
            if name.endswith("bias"):
                values.normal_(0, 0.3)
            elif values.ndim == 1:
                values.uniform_(0.5, 1.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean over all that it sees
        network.train()
        network(torch.from_numpy(np.concatenate(list(_tiny_images(seed=0, count=32)))))
    return network.eval()


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """A detector of some 3,000 parameters, 32 x 32 input; each `build` gives equal weights."""
    pytest.importorskip("torch", reason="the tiny network is built in torch")
    return ModelSpec(
        name="tiny",
        options={},
        build=_build_tiny,
        image=ImageSpec(
            height=TINY_SIZE, width=TINY_SIZE, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
        ),
        priors=_tiny_priors(),
        decoding=Decoding(),
        labels=TINY_LABELS,
        source=Source(paper="none", repository="none", licence="MIT"),
    )


def _manifest(exporter: Exporter, exported: Exported, job: ExportJob) -> Artifact:
    spec = job.spec
    artifacts.write_extras(
        job.folder,
        spec.priors,
        artifacts.Golden(
            np.zeros((0, spec.image.height, spec.image.width, 3), np.uint8),
            RawOutputs(np.zeros((0, 1, 1)), np.zeros((0, 1, 4))),
        ),
    )
    files = artifacts.entries(job.folder, exported.files)
    return Artifact(
        model=spec.name,
        model_options=dict(spec.options),
        weights_sha256="0" * 64,
        weights_source="seeded",
        recipe="none",
        exporter=exporter.name,
        format=exported.format or exporter.format,
        precision=exporter.precision,
        options=dict(job.options),
        files=files,
        sha256=artifacts.model_digest(files),
        size_bytes=sum(entry.size_bytes for entry in files if entry.role == "model"),
        inputs=exported.inputs,
        outputs=exported.outputs,
        image=spec.image,
        decoding=exported.decoding or spec.decoding,
        labels=spec.labels,
        calibration=None,
        toolchain=dict(exported.toolchain),
        fingerprint="test",
        created_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC).isoformat(),
        export_ns=0,
        layers=tuple(exported.layers),
        layer_outputs=exported.layer_outputs,
        notes=exported.notes,
        output_kind=exported.output_kind,
    )


@pytest.fixture(scope="session")
def export_artifact(tmp_path_factory: pytest.TempPathFactory) -> MakeArtifact:
    """``export_artifact(exporter, spec, calibration, **options)`` -> artifact and its folder.

    Each combination, also of what builds the network, is exported once in a session.
    """
    made: dict[Any, tuple[Artifact, Path]] = {}

    def make(
        name: str, spec: ModelSpec, calibration: Calibration | None = None, /, **options: Scalar
    ) -> tuple[Artifact, Path]:
        key = (name, spec.name, spec.build, tuple(sorted(options.items())))
        if key not in made:
            exporter = EXPORTERS.get(name)()
            folder = tmp_path_factory.mktemp(name)
            job = ExportJob(
                spec=spec,
                network=spec.build(),
                options={**exporter.options, **options},
                calibration=calibration,
                folder=folder,
            )
            assert exporter.unsupported(spec, job.options) is None
            made[key] = (_manifest(exporter, exporter.export(job), job), folder)
        return made[key]

    return make


@pytest.fixture(scope="session")
def golden_mb2() -> ModelSpec:
    """``mb2_ssd_lite`` with 21 classes, whose `build` gives the weights of the golden outputs."""
    torch = pytest.importorskip("torch", reason="the network is built in torch")
    spec = MODELS.get("mb2_ssd_lite")(("background", *(f"class {i}" for i in range(1, 21))))

    def build() -> Any:
        network = spec.build()
        network.load_state_dict(
            {
                key: torch.from_numpy(deterministic(key, tuple(value.shape)))
                for key, value in network.state_dict().items()
            }
        )
        return network

    return dataclasses.replace(spec, build=build)


@pytest.fixture(scope="session")
def golden_image() -> Images:
    """The image of the golden outputs, float32 (1, 3, 300, 300)."""
    rng = np.random.Generator(np.random.PCG64(0))
    return rng.normal(0, 1, (1, 3, 300, 300)).astype(np.float32)


@pytest.fixture
def native_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CpuTarget:
    """This machine for TVM, with nothing known of its kernels yet."""
    pytest.importorskip("tvm", reason="tells what this machine is")
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    return resolve("native")


@pytest.fixture
def measure_task() -> MeasureTask:
    """An accuracy cell of nothing in particular."""
    cell = Cell(
        model="tiny",
        model_options={},
        weights="none",
        exporter="none",
        export_options={},
        runner="null",
        measure="accuracy",
        threads=1,
    )
    return MeasureTask(cell=cell, folder=".", images=3, tier="smoke", round=0, rounds=1, seed=0)


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A VOC tree of coloured squares that nobody may write to, as ``voc:/path``."""
    return paint(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="session")
def tiny_ssd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model that is known by its name, ``tiny_ssd``, from now on."""
    return write_tiny_ssd(tmp_path_factory.mktemp("model"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads than a tiny network can use cost more than they bring."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
