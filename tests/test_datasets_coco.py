"""COCO: ids, flags, where files are sought, and every fault as one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.datasets.coco import Coco
from harness.errors import BadAnnotation, BadConfig, BadImage, UnknownName


def content(**changes: Any) -> dict[str, Any]:
    thing = {"id": 7, "image_id": 3, "category_id": 90, "bbox": [1.5, 2, 10, 20.25], "area": 99.5}
    whole = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 40, "height": 30, "license": 1}],
        "annotations": [{**thing, "iscrowd": 0, "segmentation": [[1, 2, 3]]}],
        "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}],
    }
    for key, value in changes.items():
        if key in whole:
            whole[key] = value
        else:
            whole["annotations"][0][key] = value
    return whole


def make(folder: Path, whole: dict[str, Any], name: str = "instances.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(whole))
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "images/a.jpg")
    return path


def test_ids_become_contiguous_labels_and_are_kept(tmp_path):
    data = Coco(make(tmp_path, content()))
    assert data.labels == ("background", "person", "brush")
    assert data.category_ids == (1, 90)
    truth = data.truth(0)
    assert truth.boxes.tolist() == [[1.5, 2, 11.5, 22.25]]
    assert truth.boxes.dtype == np.float32
    assert truth.labels.tolist() == [2]
    assert truth.area is not None
    assert truth.area.tolist() == [99.5]
    assert data.image_id(0) == "3"
    assert data.image(0).shape == (30, 40, 3)
    assert len(data.digest(0)) == 64


def test_crowds_and_absent_areas(tmp_path):
    whole = content(iscrowd=1)
    del whole["annotations"][0]["area"]
    truth = Coco(make(tmp_path, whole)).truth(0)
    assert truth.crowd.tolist() == [True]
    assert truth.area is not None
    assert truth.area.tolist() == [202.5]


def test_an_image_without_annotations_has_empty_truth(tmp_path):
    truth = Coco(make(tmp_path, content(annotations=[]))).truth(0)
    assert truth.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bbox": [1, 2, 0, 5]}, "holds no pixel"),
        ({"bbox": [1, 2, -3, 5]}, "has the box (1, 2, -2, 7)"),
        ({"bbox": [1, 2, float("nan"), 5]}, "not finite"),
        ({"bbox": [1, 2, float("inf"), 5]}, "not finite"),
        ({"bbox": [1, 2, 45, 5]}, "reaches outside its image of 40x30"),
        ({"bbox": [-3, 2, 5, 5]}, "reaches outside"),
        ({"bbox": [1, 2, 3]}, "has a bbox of 3 numbers"),
        ({"category_id": 2}, "is of category 2, which the file does not list"),
    ],
)
def test_impossible_ground_truth_names_file_annotation_and_image(tmp_path, changes, says):
    path = make(tmp_path, content(**changes))
    with pytest.raises(BadAnnotation) as caught:
        Coco(path).truth(0)
    assert f"{path}, annotation 7 of image 3" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_id": 4}, "annotation 7 is of image 4, which the file does not list"),
        ({"bbox": "wide"}, "$.annotations[0].bbox"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id twice"),
        ({"images": []}, "lists no image"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, changes, says):
    path = make(tmp_path, content(**changes))
    with pytest.raises(BadAnnotation) as caught:
        Coco(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_image_listed_twice_is_refused(tmp_path):
    twice = content()["images"] * 2
    with pytest.raises(BadAnnotation, match="lists image id 3 twice: correct or delete one"):
        Coco(make(tmp_path, content(images=twice)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not valid JSON"),
        ('{"images": [', "is not valid JSON"),
        ('{"categories": ' + "[" * 100_000, "is not"),
        ("[1, 2]", "is not a COCO instances file"),
        ('{"images": []}', "missing required field `categories`"),
    ],
)
def test_another_file_is_refused(tmp_path, text, says):
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(BadAnnotation) as caught:
        Coco(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_bad_images_are_named(tmp_path):
    data = Coco(make(tmp_path, content()))
    Image.new("RGB", (30, 40)).save(data.path(0))
    with pytest.raises(BadAnnotation, match=r"image 3 declares 40x30 pixels, but .*has 30x40"):
        data.image(0)
    data.path(0).write_bytes(b"")
    with pytest.raises(BadImage, match=r"a\.jpg is empty"):
        data.image(0)
    data.path(0).unlink()
    with pytest.raises(BadImage, match=r"a\.jpg does not exist"):
        data.image(0)


def test_file_and_images_are_found_in_the_usual_places(tmp_path):
    make(tmp_path / "flat", content())
    data = Coco(tmp_path / "flat")
    assert (data.split, data.images) == ("all", tmp_path / "flat/images")
    usual = tmp_path / "usual"
    for split in ("train2017", "val2017"):
        make(usual / "annotations", content(), f"instances_{split}.json")
        (usual / split).mkdir()
        Image.new("RGB", (40, 30)).save(usual / split / "a.jpg")
    (usual / "annotations/images/a.jpg").unlink()
    data = Coco(usual, "val2017")
    assert (data.split, data.images) == ("val2017", usual / "val2017")
    with pytest.raises(BadConfig, match=r"several splits: add one of :train2017, :val2017"):
        Coco(usual)
    with pytest.raises(UnknownName, match="did you mean 'val2017'"):
        Coco(usual, "val2107")
    with pytest.raises(BadConfig, match="is one file and has no split"):
        Coco(usual / "annotations/instances_val2017.json", "val2017")
    with pytest.raises(BadConfig, match=r"has no instances\*\.json"):
        Coco(usual / "val2017")
    (usual / "val2017/a.jpg").unlink()
    with pytest.raises(BadConfig, match=r"no image of .*instances_val2017\.json was found in"):
        Coco(usual, "val2017")


def test_the_limit_takes_the_first(tmp_path):
    images = [{"id": key, "file_name": "a.jpg", "width": 40, "height": 30} for key in (9, 3, 5)]
    data = Coco(make(tmp_path, content(images=images)), limit=2)
    assert [data.image_id(index) for index in range(len(data))] == ["9", "3"]
    assert [len(data.truth(index).boxes) for index in range(2)] == [0, 1]


def test_real_coco_photos(shared: Path):
    data = Coco(shared / "data" / "coco-val2017-128")
    truths = [data.truth(index) for index in range(len(data))]
    assert len(data) == 128
    assert sum(len(truth.boxes) for truth in truths) == 1074
    assert sum(int(truth.crowd.sum()) for truth in truths) == 10
    assert len({int(label) for truth in truths for label in truth.labels}) == 77
    assert len(data.labels) == 81
    assert data.category_ids[-1] == 90
    for index in range(0, 128, 16):
        data.image(index)  # raises where the photo's size is not the declared one
