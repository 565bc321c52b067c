"""Written out and read again: the same boxes, labels and flags; other tools read it too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.datasets.coco import Coco
from harness.datasets.shapes import Shapes
from harness.datasets.voc import Voc
from harness.datasets.writers import write_coco, write_voc
from harness.errors import ResultsError
from harness.interfaces import Dataset, Truth


class Odd(Dataset):
    """Two images with fractional boxes, both flags, a name to escape, and no object at all."""

    name = "odd"
    split = "test"
    labels = ("background", "cat", "cup & <saucer>")

    def __len__(self) -> int:
        return 2

    def image_id(self, index: int) -> str:
        return f"odd-{index}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 256, (20, 30, 3)).astype(np.uint8)

    def truth(self, index: int) -> Truth:
        boxes = [[0.4, 0.6, 10.5, 9.4], [3.2, 3.2, 3.3, 3.3], [29.6, 0, 30, 20]]
        keep = 3 * (1 - index)
        return Truth(
            np.array(boxes[:keep], np.float32).reshape(-1, 4),
            np.array([1, 2, 2][:keep], np.int64),
            np.array([True, False, False][:keep]),
            np.array([False, False, True][:keep]),
        )

    def digest(self, index: int) -> str:
        return hashlib.sha256(self.image(index).tobytes()).hexdigest()


def test_voc_gives_shapes_back(tmp_path):
    data = Shapes("val", 6)
    root = write_voc(data, tmp_path)
    assert root == tmp_path / "VOCdevkit" / "VOC2012"
    again = Voc(tmp_path)
    assert again.labels == data.labels
    assert (again.split, len(again)) == ("val", 6)
    for index in range(6):
        assert again.image_id(index) == data.image_id(index)
        for ours, theirs in zip(data.truth(index)[:4], again.truth(index)[:4], strict=True):
            assert np.array_equal(ours, theirs)
        apart = np.abs(again.image(index).astype(int) - data.image(index))
        assert apart.mean() < 4  # JPEG, quality 95


def test_coco_gives_shapes_back_to_the_pixel(tmp_path):
    data = Shapes("calibration", 6)
    path = write_coco(data, tmp_path)
    assert path == tmp_path / "annotations" / "instances_calibration.json"
    again = Coco(tmp_path, "calibration")
    assert again.labels == data.labels
    for index in range(6):
        for ours, theirs in zip(data.truth(index)[:4], again.truth(index)[:4], strict=True):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(again.image(index), data.image(index))


def test_voc_rounds_to_whole_pixels_and_keeps_flags(tmp_path):
    write_voc(Odd(), tmp_path)
    data = Voc(tmp_path, "test")
    assert data.labels == Odd.labels
    truth = data.truth(0)
    assert truth.boxes.tolist() == [[0, 1, 11, 9], [3, 3, 4, 4], [29, 0, 30, 20]]
    assert truth.labels.tolist() == [1, 2, 2]
    assert truth.difficult.tolist() == [True, False, True]  # VOC knows no crowd
    assert truth.crowd.tolist() == [False, False, True]
    assert data.truth(1).boxes.shape == (0, 4)


def test_coco_keeps_fractions_and_flags(tmp_path):
    write_coco(Odd(), tmp_path)
    truth, expected = Coco(tmp_path).truth(0), Odd().truth(0)
    assert np.allclose(truth.boxes, expected.boxes, atol=1e-5)
    assert truth.difficult.tolist() == expected.difficult.tolist()
    assert truth.crowd.tolist() == expected.crowd.tolist()
    assert Coco(tmp_path).truth(1).boxes.shape == (0, 4)


def test_voc_has_what_the_development_kit_reads(tmp_path):
    root = write_voc(Odd(), tmp_path)
    assert (root / "JPEGImages/odd-0.jpg").read_bytes()[:2] == b"\xff\xd8"
    tree = ElementTree.parse(root / "Annotations/odd-0.xml")
    assert tree.findtext("filename") == "odd-0.jpg"
    assert [tree.findtext(f"size/{key}") for key in ("width", "height", "depth")] == [
        "30",
        "20",
        "3",
    ]
    keys = {"name", "pose", "truncated", "difficult", "bndbox"}
    assert all(keys <= {child.tag for child in node} for node in tree.iter("object"))
    lists = root / "ImageSets/Main"
    assert (lists / "test.txt").read_text() == "odd-0\nodd-1\n"
    assert (lists / "cat_test.txt").read_text() == "odd-0  0\nodd-1 -1\n"
    assert (lists / "cup & <saucer>_test.txt").read_text() == "odd-0  1\nodd-1 -1\n"


def test_two_splits_fit_into_one_folder(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        write_voc(Shapes(split, count), tmp_path)
        write_coco(Shapes(split, count), tmp_path)
    assert [len(Voc(tmp_path, split)) for split in ("train", "val")] == [3, 2]
    assert [len(Coco(tmp_path, split)) for split in ("train", "val")] == [3, 2]


def test_coco_is_read_by_pycocotools(tmp_path, capsys):
    tools = pytest.importorskip("pycocotools.coco", reason="compares with the reference reader")
    reference = tools.COCO(str(write_coco(Odd(), tmp_path)))
    capsys.readouterr()
    assert reference.getCatIds() == [1, 2]
    things = reference.loadAnns(reference.getAnnIds(imgIds=[1]))
    assert [thing["category_id"] for thing in things] == [1, 2, 2]
    assert [thing["iscrowd"] for thing in things] == [0, 0, 1]
    assert np.allclose(things[0]["bbox"], [0.4, 0.6, 10.1, 8.8], atol=1e-5)
    assert np.isclose(things[0]["area"], 10.1 * 8.8, atol=1e-4)


def test_real_photos_are_copied_byte_by_byte(shared: Path, tmp_path):
    source = Coco(shared / "data" / "coco-val2017-128", limit=12)
    as_voc, as_coco = write_voc(source, tmp_path / "v"), write_coco(source, tmp_path / "c")
    voc, coco = Voc(as_voc), Coco(as_coco)
    assert coco.category_ids == source.category_ids
    for index in range(12):
        assert source.digest(index) == voc.digest(index) == coco.digest(index)
        truth = source.truth(index)
        assert np.allclose(coco.truth(index).boxes, truth.boxes, atol=1e-3)
        assert np.array_equal(coco.truth(index).area, truth.area)
        assert np.array_equal(coco.truth(index).crowd, truth.crowd)
        assert np.array_equal(voc.truth(index).labels, truth.labels)
        assert np.abs(voc.truth(index).boxes - truth.boxes).max(initial=0) <= 1
    assert json.loads(as_coco.read_text())["images"][0]["id"] == 1


@pytest.mark.parametrize("write", [write_voc, write_coco])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, write):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"cannot be written .*: free space or choose another"):
        write(Odd(), tmp_path / "file")
