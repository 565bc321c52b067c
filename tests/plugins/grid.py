"""A plug-in file as a user would write one: a model, an exporter, a runner, and faulty runners.

The model averages the picture over an 8 x 8 grid and maps each cell's colour to logits and
offsets, so that the runner needs numpy only and a child process starts fast.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import ArtifactDamaged
from harness.interfaces import (
    EXPORTERS,
    MODELS,
    RUNNERS,
    Exported,
    Exporter,
    ExportJob,
    RawOutputs,
    Runner,
    RunOptions,
    Session,
)
from harness.records import (
    Artifact,
    Decoding,
    ImageSpec,
    ModelSpec,
    Options,
    Source,
    TensorSpec,
)

SIZE, CELLS = 64, 8


@MODELS.register
def grid(labels: tuple[str, ...], *, seed: int = 0) -> ModelSpec:
    """64 priors, one a cell."""

    def build() -> Any:
        import torch
        from torch import nn

        class Grid(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.pool = nn.AvgPool2d(SIZE // CELLS)
                self.logits = nn.Conv2d(3, len(labels), 1)
                self.offsets = nn.Conv2d(3, 4, 1)

            def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                pooled = self.pool(image)
                return tuple(head(pooled).flatten(2).mT for head in (self.logits, self.offsets))

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Grid().eval()

    ticks = (np.arange(CELLS) + 0.5) / CELLS
    priors = [(x, y, 0.2, 0.2) for y in ticks for x in ticks]
    return ModelSpec(
        name="grid",
        options={"seed": seed},
        build=build,
        image=ImageSpec(height=SIZE, width=SIZE, mean=(127.0,) * 3, std=(64.0,) * 3),
        priors=np.array(priors, np.float32),
        decoding=Decoding(),
        labels=labels,
        source=Source(paper="none", repository="none", licence="MIT"),
    )


@EXPORTERS.register
class GridNumpy(Exporter):
    name = "grid_numpy"
    format = "grid"
    precision = "float32"
    modules = ("torch",)
    extra = "torch"
    options: ClassVar[Options] = {"fail": "no", "scale": 1.0}

    def export(self, job: ExportJob) -> Exported:
        if job.options["fail"] == "raise":
            raise ValueError("the toolchain has a bug\nand says more")
        if job.options["fail"] == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if job.options["fail"] == "hang":
            time.sleep(600)
        state = {key: value.numpy() for key, value in job.network.state_dict().items()}
        np.savez(job.folder / "model.npz", **state)
        height, width, classes = SIZE, SIZE, len(job.spec.labels)
        image = TensorSpec(
            name="image", dtype="float32", shape=(1, 3, height, width), layout="NCHW"
        )
        outputs = (
            TensorSpec(name="logits", dtype="float32", shape=(1, 64, classes), layout="NPC"),
            TensorSpec(name="offsets", dtype="float32", shape=(1, 64, 4), layout="NPC"),
        )
        return Exported(files=["model.npz"], inputs=(image,), outputs=outputs, toolchain={})


class GridSession(Session):
    def __init__(self, path: Path) -> None:
        self.versions = {"numpy": np.__version__}
        try:
            self.weights = dict(np.load(path))
        except ValueError as error:
            raise ArtifactDamaged(f"{path} cannot be loaded: {error}") from None

    def run(self, images: NDArray[Any]) -> RawOutputs:
        n, step = images.shape[0], SIZE // CELLS
        cells = images.reshape(n, 3, CELLS, step, CELLS, step).mean((3, 5)).reshape(n, 3, -1)
        rows = cells.transpose(0, 2, 1)
        return RawOutputs(self._head(rows, "logits"), self._head(rows, "offsets"))

    def _head(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        weight = self.weights[f"{name}.weight"][:, :, 0, 0]
        return (rows @ weight.T + self.weights[f"{name}.bias"]).astype(np.float32)


class GridRunner(Runner):
    formats = frozenset({"grid"})
    modules = ("numpy",)
    extra = "all"

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        self.misbehave()
        return GridSession(folder / artifact.files[0].path)

    def misbehave(self) -> None:
        """Nothing, in the one that works."""


@RUNNERS.register
class Good(GridRunner):
    name = "grid_cpu"


@RUNNERS.register
class Crashing(GridRunner):
    name = "grid_crashing"

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


@RUNNERS.register
class Killed(GridRunner):
    name = "grid_killed"

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@RUNNERS.register
class OutOfMemory(GridRunner):
    name = "grid_out_of_memory"

    def misbehave(self) -> None:
        raise MemoryError


@RUNNERS.register
class Hanging(GridRunner):
    name = "grid_hanging"

    def misbehave(self) -> None:
        time.sleep(600)


@RUNNERS.register
class Broken(GridRunner):
    name = "grid_broken"

    def misbehave(self) -> None:
        import harness.no_such_module  # noqa: F401  # the import error is the point


@RUNNERS.register
class Absent(GridRunner):
    name = "grid_absent"
    modules = ("no_such_framework",)


class Doubled(GridSession):
    def run(self, images: NDArray[Any]) -> RawOutputs:
        logits, offsets = super().run(images)
        return RawOutputs(logits * 2, offsets)


@RUNNERS.register
class Wrong(GridRunner):
    name = "grid_wrong"

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        return Doubled(folder / artifact.files[0].path)
