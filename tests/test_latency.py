"""One round of a latency cell: METHOD rules 3, 9 and 10, with sessions that cheat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import detections, latency, stats
from harness.errors import ParityFailed
from harness.images import Preprocessor
from harness.interfaces import Dataset, RawOutputs, Session, Truth
from harness.opened import Opened
from harness.records import Artifact, Cell, Decoding, ImageSpec, Measurement, TensorSpec
from harness.tasks import MeasureTask

SIZE, PRIORS = 16, 4


class Pictures(Dataset):
    """Eight pictures of noise."""

    name, split, labels = "noise", "val", ("background", "thing")

    def __len__(self) -> int:
        return 8

    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 255, (40, 30, 3), dtype=np.uint8)

    def truth(self, index: int) -> Truth:
        raise NotImplementedError

    def digest(self, index: int) -> str:
        raise NotImplementedError


class Pretending(Session):
    """Answers by the input's mean; ``cheat`` changes answer or speed."""

    versions: dict[str, str] = {}  # noqa: RUF012  # as the interface has it

    def __init__(self, cheat: str = "") -> None:
        self.cheat, self.calls, self.seen = cheat, 0, b""

    def run(self, images: NDArray[Any]) -> RawOutputs:
        self.calls += 1
        key = images.tobytes()[:4096]
        work = 2 if self.cheat == "cache" and key == self.seen else 40
        self.seen = key
        for _ in range(work):
            np.sort(np.arange(4000) % 977)
        n = len(images)
        logits = np.zeros((n, PRIORS, 2), np.float32)
        logits[:, :, 1] = images.mean((1, 2, 3))[:, None] + [3, 2, -9, -9]
        if self.cheat == "under load":
            logits[:, 0, 1] += self.calls % 7
        if self.cheat == "another network":
            logits[:, 2, 1] = 5
        return RawOutputs(logits, np.zeros((n, PRIORS, 4), np.float32))


def opened(session: Session, batch: int = 1) -> Opened:
    image = TensorSpec(name="image", dtype="float32", shape=(batch, 3, SIZE, SIZE), layout="NCHW")
    heads = tuple(
        TensorSpec(name=name, dtype="float32", shape=(batch, PRIORS, width), layout="NPC")
        for name, width in (("logits", 2), ("offsets", 4))
    )
    spec = ImageSpec(height=SIZE, width=SIZE, mean=(127.0,) * 3, std=(128.0,) * 3)
    artifact = Artifact(
        model="pretend",
        model_options={},
        weights_sha256="",
        weights_source="none",
        recipe="none",
        exporter="none",
        format="none",
        precision="float32",
        options={},
        files=(),
        sha256="0" * 64,
        size_bytes=0,
        inputs=(image,),
        outputs=heads,
        image=spec,
        decoding=Decoding(),
        labels=Pictures.labels,
        calibration=None,
        toolchain={},
        fingerprint="",
        created_at="",
        export_ns=0,
    )
    corners = np.array([(x, y, 0.4, 0.4) for x in (0.25, 0.75) for y in (0.25, 0.75)], np.float32)
    return Opened(artifact, session, Preprocessor(spec, image), corners)


def task(**more: Any) -> MeasureTask:
    cell = Cell(
        model="pretend",
        model_options={},
        weights="none",
        exporter="none",
        export_options={},
        runner="none",
        measure="latency",
        threads=1,
    )
    given: dict[str, Any] = {"images": 8, "tier": "smoke", "round": 0, "rounds": 1, "seed": 0}
    return MeasureTask(cell=cell, folder="", **{**given, **more})


def timed(session: Session, batch: int = 1, **more: Any) -> dict[str, Measurement]:
    data = Pictures()
    images = [data.image(index) for index in range(len(data))]
    found = latency.time_cell(task(**more), opened(session, batch), data, images)
    assert len({m.metric for m in found}) == len(found)
    return {m.metric: m for m in found}


def scored(path: Path) -> Path:
    """What the accuracy run of an honest session leaves."""
    data, honest = Pictures(), opened(Pretending())
    images = [data.image(index) for index in range(len(data))]
    found = honest.detect(honest.infer(images), [(40, 30)] * 8)
    assert all((one.scores > 0.3).any() for one in found)
    detections.save(path, detections.Found([data.image_id(i) for i in range(8)], found))
    return path


def test_an_honest_runtime_is_timed_stage_by_stage() -> None:
    found = timed(Pretending())
    stages = ("decode_image", "preprocess", "inference_in_pipeline", "postprocess")
    parts = zip(*(found[f"latency.{stage}"].samples for stage in stages), strict=True)
    for sample, total in zip(parts, found["latency.end_to_end"].samples, strict=True):
        assert sum(sample) == pytest.approx(total)
    assert "made from the drawn picture" in found["latency.decode_image"].conditions["files"]
    assert found["latency.inference"].conditions["outputs_equal"] == ["untimed calls"]


def test_a_runtime_that_computes_something_else_under_load_is_refused() -> None:
    with pytest.raises(ParityFailed, match="something else under load"):
        timed(Pretending("under load"))


@pytest.mark.slow
def test_timed_outputs_are_held_against_the_accuracy_run(tmp_path: Path) -> None:
    path = scored(tmp_path / "found.npz")
    found = timed(Pretending(), scored=str(path))
    assert found["latency.inference"].conditions["outputs_equal"] == [
        "untimed calls",
        "the accuracy run",
    ]
    with pytest.raises(ParityFailed, match=r"accuracy run \(1 new\).*not what was scored"):
        timed(Pretending("another network"), scored=str(path))


@pytest.mark.slow
@pytest.mark.parametrize(("cheat", "caught"), [("", False), ("cache", True)])
def test_a_runtime_that_caches_is_caught(cheat: str, caught: bool) -> None:
    """Up to three tries: a busy machine may hide a cache from a dozen calls, or feign one."""
    seen = []
    for _ in range(3):
        found = timed(Pretending(cheat))
        fresh, repeated = (found[f"latency.{name}"].samples for name in ("fresh", "repeated"))
        seen.append(stats.caching(fresh, repeated) is not None)
        if seen[-1] == caught:
            return
    pytest.fail(f"a cache was seen: {seen}, planted: {caught}")


def test_a_batch_is_fed_whole_and_each_picture_gets_its_own_answer() -> None:
    data = Pictures()
    images = [data.image(index) for index in range(7)]
    alone, together = opened(Pretending()).infer(images), opened(Pretending(), 3).infer(images)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-6)
    assert timed(Pretending(), batch=3)["latency.inference"].conditions["batch"] == 3
