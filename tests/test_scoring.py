"""A pass over a data set: split any way it gives the same; bad images are named or counted."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from PIL import Image

from harness.accuracy import evaluate
from harness.datasets import open_dataset
from harness.datasets.images import Images
from harness.datasets.shapes import Shapes
from harness.datasets.writers import write_coco, write_voc
from harness.detections import load, save
from harness.errors import BadAnnotation, BadImage
from harness.images import pixels_digest
from harness.interfaces import Detections
from harness.records import CalibrationList
from harness.scoring import OVERLAP, SKIPPED, Pass, merge, run_over, shard_range
from harness.sharding import score_in_shards, shards_for
from harness.tasks import ChildResult
from tests.test_datasets_voc import SIZE, make, thing

IMAGES = 23


class Clumsy:
    """A detector that answers the ground truth, moved and rescored by the picture's own pixels."""

    def __init__(self, data):
        self.truths = {pixels_digest(data.image(k)): data.truth(k) for k in range(len(data))}

    def __call__(self, image, lap):
        truth = self.truths[pixels_digest(image)]
        rng = np.random.default_rng(int(image.astype(np.int64).sum()))
        boxes = truth.boxes + rng.normal(0, 4, truth.boxes.shape).astype(np.float32)
        labels = np.where(rng.random(len(boxes)) < 0.2, 1, truth.labels)
        scores = np.round(rng.random(len(boxes)), 1).astype(np.float32)  # many ties
        order = np.argsort(-scores, kind="stable")
        for stage in ("preprocess", "inference", "postprocess"):
            lap(stage)
        return Detections(boxes[order], labels[order].astype(np.int64), scores[order])


@pytest.fixture(scope="module")
def data():
    return Shapes("val", IMAGES)


@pytest.fixture(scope="module")
def model(data):
    return Clumsy(data)


def one_pass(data, model, indices, **options):
    identity = np.arange(len(data.labels), dtype=np.int64)
    options = {"to_model": identity, "calibration": None, "skip_bad": False, **options}
    return run_over(data, indices, model, **options)


def figures(seen, labels):
    found = seen.found
    return evaluate(found.truths, found.detections, found.sizes, labels, resamples=50)


def test_every_image_is_in_exactly_one_shard():
    for images in (0, 1, 7, 100):
        for shards in (1, 2, 3, 8, 101):
            ranges = [shard_range(images, k, shards) for k in range(shards)]
            assert [index for one in ranges for index in one] == list(range(images))
            sizes = [len(one) for one in ranges]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shards", [2, 3, 7, 30])
def test_any_sharding_gives_the_same_figures_to_the_bit(data, model, shards, tmp_path):
    whole = one_pass(data, model, range(IMAGES))
    parts = []
    for number in range(shards):
        part = one_pass(data, model, shard_range(IMAGES, number, shards))
        save(tmp_path / f"{number}.npz", part.found)
        parts.append(Pass(load(tmp_path / f"{number}.npz"), part.measurements))
    joined = merge(parts)
    assert joined.found.names == whole.found.names
    assert joined.found.digests == whole.found.digests
    expected, got = figures(whole, data.labels), figures(joined, data.labels)
    assert got == expected
    assert 0.05 < expected[2].value < 0.95
    assert msgspec.json.encode(got) == msgspec.json.encode(expected)
    times = {item.metric: item for item in joined.measurements}
    assert times["time.image"].conditions == {"images": IMAGES}
    assert times["time.image"].value == sum(
        item.value for part in parts for item in part.measurements if item.metric == "time.image"
    )


def test_a_lost_image_would_be_seen(data, model):
    whole = figures(one_pass(data, model, range(IMAGES)), data.labels)
    fewer = figures(one_pass(data, model, range(IMAGES - 1)), data.labels)
    assert whole != fewer


def calibration(data, indices):
    return CalibrationList(
        dataset=data.name,
        split=data.split,
        seed=0,
        sha256=tuple(data.digest(index) for index in indices),
        pixels=tuple(pixels_digest(data.image(index)) for index in indices),
    )


def overlap(seen):
    return next(item.value for item in seen.measurements if item.metric == OVERLAP)


def test_scored_images_that_calibrated_are_counted_however_they_are_stored(data, model, tmp_path):
    drawn = calibration(data, (2, 5, 7))
    assert overlap(one_pass(data, model, range(IMAGES), calibration=drawn)) == 3
    assert overlap(one_pass(data, model, range(5), calibration=drawn)) == 1
    shards = [one_pass(data, model, shard_range(IMAGES, k, 4), calibration=drawn) for k in range(4)]
    assert overlap(merge(shards)) == 3
    write_coco(Shapes("val", 8), tmp_path)
    written = open_dataset(f"coco:{tmp_path}")
    assert overlap(one_pass(written, model, range(8), calibration=drawn)) == 3
    of_files = calibration(written, (0, 1))
    assert overlap(one_pass(data, model, range(IMAGES), calibration=of_files)) == 2
    other = calibration(Shapes("calibration", 4), range(4))
    assert overlap(one_pass(data, model, range(IMAGES), calibration=other)) == 0


@pytest.fixture
def spoilt(tmp_path):
    """A VOC folder of which two images are bad, one in its pixels and one in its boxes."""
    boxes = dict.fromkeys("abcd", SIZE + thing("1 1 40 30"))
    boxes["b"] = SIZE + thing("30 1 20 30")
    root = make(tmp_path, boxes)
    path = root / "JPEGImages" / "d.jpg"
    path.write_bytes(path.read_bytes()[:200])
    (root / "labels.txt").write_text("dog\n")
    return root


def nothing(image, lap):
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))


def test_a_bad_image_ends_the_evaluation_and_says_how_to_go_on(spoilt):
    voc = open_dataset(f"voc:{spoilt}")
    with pytest.raises(BadAnnotation, match=r"b\.xml, line 1, object 1.*with --skip-bad"):
        one_pass(voc, nothing, range(4))
    with pytest.raises(BadImage, match=r"d\.jpg cannot be read .*with --skip-bad"):
        one_pass(voc, nothing, range(2, 4))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_bad_images_are_left_out_counted_and_named_if_that_is_asked(spoilt, shards):
    (spoilt / "ImageSets/Main/val.txt").write_text("a\nb\nc\nd\na\n")
    voc = open_dataset(f"voc:{spoilt}", skip_bad=True)
    passes = [
        one_pass(
            voc,
            nothing,
            shard_range(4, k, shards),
            skip_bad=True,
            dropped=voc.dropped if k == 0 else (),
        )
        for k in range(shards)
    ]
    seen = merge(passes)
    assert seen.found.names == ["a", "c"]
    skipped = next(item for item in seen.measurements if item.metric == SKIPPED)
    assert skipped.value == 3
    assert [entry["id"] for entry in skipped.conditions["bad"]] == ["", "b", "d"]
    assert "line 5 lists image a again" in skipped.conditions["bad"][0]["reason"]
    assert figures(seen, voc.labels)[0].conditions["images"] == 2


def test_images_without_ground_truth_have_no_truths(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "x.png")
    seen = run_over(
        Images(tmp_path), range(1), nothing, to_model=None, calibration=None, skip_bad=False
    )
    assert seen.found.truths is None
    assert seen.found.sizes == [(4, 5)]


def test_a_shard_that_crashes_fails_its_cell_and_leaves_nothing(tmp_path, measure_task):
    ran = []

    def run(task, name):
        ran.append((task.shard, task.shards, task.reference))
        save(tmp_path / "x.npz", merge([one_pass(Shapes("val", 1), nothing, range(0))]).found)
        (tmp_path / "x.npz").rename(task.detections)
        if task.shard == 1:
            return ChildResult(state="crashed", error="killed by SIGKILL")
        return ChildResult(state="ok")

    task = msgspec.structs.replace(measure_task, detections=str(tmp_path / "cell.npz"))
    result = score_in_shards(task, "cell", shards=3, jobs=2, run=run, join=run)
    assert (result.state, result.error) == ("crashed", "shard 2 of 3: killed by SIGKILL")
    assert sorted(ran) == [(k, 3, None) for k in range(3)]
    assert list(tmp_path.iterdir()) == []


def test_written_data_sets_are_read_from_several_roots(tmp_path):
    for name, count in (("one", 3), ("two", 2)):
        write_voc(Shapes("val", count), tmp_path / name)
    both = open_dataset(f"voc:{tmp_path}/one+{tmp_path}/two:val")
    assert len(both) == 5
    assert [both.image_id(k).partition("/")[0] for k in (0, 3)] == ["VOC2012-1", "VOC2012-2"]
    assert (both.truth(3).boxes == both.truth(0).boxes).all()
    assert json.dumps(both.labels) == json.dumps(Shapes("val").labels)


@pytest.mark.parametrize(
    ("cells", "cores", "images", "shards"),
    [
        (1, 2, 5000, 2),
        (7, 2, 5000, 1),
        (2, 8, 5000, 4),
        (1, 8, 1300, 3),
        (1, 2, 300, 1),
        (0, 2, 9, 1),
    ],
)
def test_cells_are_split_where_cores_would_be_idle(cells, cores, images, shards):
    assert shards_for(cells, cores, images) == shards
