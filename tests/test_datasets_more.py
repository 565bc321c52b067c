"""Open Images, several VOC roots, folders without ground truth, and what calibrates by default."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import calibration
from harness.config import Calibration
from harness.datasets import open_dataset
from harness.datasets.shapes import Shapes
from harness.datasets.training import training_split
from harness.datasets.writers import write_coco, write_voc
from harness.errors import BadAnnotation, BadConfig, UnknownName
from harness.evaluation import class_map
from harness.fetch.published import published
from tests.painted import Painted
from tests.test_datasets_voc import SIZE, make, thing

FLAGS = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
OFFICIAL = f"""ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{FLAGS}
b,xclick,/m/0bt9lr,1,0.1,0.5,0.2,0.6,0,1,0,0,0
a,xclick,/m/01yrx,1,0,1,0,1,0,0,1,0,0
b,activemil,/m/01yrx,1,0.25,0.75,0.5,1,-1,-1,-1,-1,-1
"""
NAMES = "/m/0bt9lr,Dog\n/m/01yrx,Cat\n/m/0k4j,Car\n"


@pytest.fixture
def official(tmp_path) -> Path:
    (tmp_path / "validation-annotations-bbox.csv").write_text(OFFICIAL)
    (tmp_path / "oidv7-class-descriptions-boxable.csv").write_text(NAMES)
    (tmp_path / "validation").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 20)).save(tmp_path / "validation" / f"{name}.jpg")
    return tmp_path


def test_the_official_boxes(official):
    data = open_dataset(f"open-images:{official}:validation")
    assert (data.name, data.split, data.labels) == (
        "open-images",
        "validation",
        ("background", "Cat", "Dog"),
    )
    assert [data.image_id(k) for k in range(len(data))] == ["b", "a"]
    first, second = data.truth(0), data.truth(1)
    np.testing.assert_allclose(first.boxes, [[4, 4, 20, 12], [10, 10, 30, 20]], rtol=1e-6)
    assert first.labels.tolist() == [2, 1]
    assert first.crowd.tolist() == [False, False]
    assert (second.boxes.tolist(), second.crowd.tolist()) == ([[0, 0, 40, 20]], [True])
    assert len(open_dataset(f"open-images:{official}", limit=1)) == 1
    with pytest.raises(UnknownName, match="did you mean 'validation'"):
        open_dataset(f"open-images:{official}:valdation")


def test_the_boxes_of_pytorch_ssd(official):
    text = OFFICIAL.replace("\n", ",Dog\n").replace("IsInside,Dog", "IsInside,ClassName")
    (official / "sub-train-annotations-bbox.csv").write_text(text)
    for path in official.glob("*descriptions*"):
        path.unlink()
    shutil.copytree(official / "validation", official / "train")
    data = open_dataset(f"open-images:{official}:train")
    assert data.labels == ("background", "Dog")
    assert data.image(0).shape == (20, 40, 3)
    with pytest.raises(BadConfig, match="has several splits: add one of :train, :validation"):
        open_dataset(f"open-images:{official}")
    with pytest.raises(BadAnnotation, match="is of class /m/0bt9lr, which no"):
        open_dataset(f"open-images:{official}:validation")


def test_several_voc_roots_are_one_data_set(tmp_path):
    one = make(tmp_path / "VOC2007", {"x": SIZE + thing("1 1 9 9")}, split="trainval")
    two = make(tmp_path / "VOC2012", {"x": SIZE, "y": SIZE + thing("2 2 9 9", name="cat")})
    (two / "ImageSets/Main/val.txt").rename(two / "ImageSets/Main/trainval.txt")
    data = open_dataset(f"voc:{one}+{two}:trainval")
    assert [data.image_id(k) for k in range(3)] == ["VOC2007/x", "VOC2012/x", "VOC2012/y"]
    assert data.split == "trainval"
    assert [data.labels[data.truth(k).labels[0]] for k in (0, 2)] == ["dog", "cat"]
    assert len(open_dataset(f"voc:{one}+{two}:trainval", limit=2)) == 2
    with pytest.raises(BadConfig, match="images takes one folder"):
        open_dataset(f"images:{one}+{two}")
    with pytest.raises(BadConfig, match=r"nowhere does not exist"):
        open_dataset(f"voc:{one}+{tmp_path}/nowhere:trainval")


def test_several_coco_files_are_one_data_set(tmp_path):
    for name in ("a", "b"):
        write_coco(Painted("train", 2), tmp_path / name)
    data = open_dataset(f"coco:{tmp_path}/a+{tmp_path}/b:train")
    assert [data.image_id(k).partition("/")[0] for k in range(len(data))] == ["a", "a", "b", "b"]
    assert data.labels == ("background", "square", "star")
    np.testing.assert_array_equal(data.truth(3).boxes, Painted("train", 2).truth(1).boxes)


def test_roots_with_other_classes_have_the_union_of_them(tmp_path):
    one = make(tmp_path / "a", {"x": SIZE + thing("1 1 9 9", name="zebra")})
    two = make(tmp_path / "b", {"x": SIZE + thing("1 1 9 9", name="apple")})
    data = open_dataset(f"voc:{one}+{two}:val")
    assert data.labels == ("background", "apple", "zebra")
    assert [data.truth(k).labels.tolist() for k in range(2)] == [[2], [1]]


def test_a_folder_of_pictures_has_no_ground_truth(tmp_path):
    for name in ("b.jpg", "sub/a.png", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name == "notes.txt":
            (tmp_path / name).write_text("x")
        else:
            Image.new("L", (6, 5)).save(tmp_path / name)
    data = open_dataset(f"images:{tmp_path}")
    assert [data.image_id(k) for k in range(len(data))] == ["b.jpg", "sub/a.png"]
    assert not data.labelled
    assert data.image(1).shape == (5, 6, 3)
    with pytest.raises(BadAnnotation, match="has no ground truth: score on a data set that has"):
        data.truth(0)
    for text in (f"images:{tmp_path}:val", f"images:{tmp_path}/b.jpg", f"images:{tmp_path}/none"):
        with pytest.raises(BadConfig):
            open_dataset(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match="holds no picture"):
        open_dataset(f"images:{tmp_path}/empty")


def test_eighty_categories_meet_ninety_outputs_by_name():
    model = published("ssdlite_mobilenet_v2_coco").labels
    used = tuple(name for name in model[1:] if not name.startswith("unused"))
    assert len(used) == 80
    mapped = class_map(("background", *used), model, "coco:val2017")
    assert mapped[1] == 1
    assert (mapped[12], mapped[80]) == (13, 90)  # the 12th category has COCO's id 13


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("val", 12), ("train", 12)):
        write_coco(Shapes(split, count), folder / "coco")
        write_voc(Shapes(split, count), folder / "voc")
    places = folder / "coco" / "annotations"
    (places / "instances_train.json").rename(places / "instances_train2017-12.json")
    (folder / "coco" / "train").rename(folder / "coco" / "train2017-12")
    return folder


def test_the_training_split_beside_the_scored_one_calibrates(written):
    coco, voc = written / "coco", written / "voc/VOCdevkit/VOC2012"
    assert training_split("shapes:val") == "shapes:calibration"
    assert training_split(f"coco:{coco}:val") == f"coco:{coco}:train2017-12"
    file = coco / "annotations/instances_val.json"
    assert training_split(f"coco:{file}") == f"coco:{coco}:train2017-12"
    assert training_split(f"voc:{voc}:val") == f"voc:{voc}:train"
    assert training_split(f"voc:{voc}:train") is None
    assert training_split(f"images:{coco}") is None
    asked = Calibration(data="shapes:train")
    assert calibration.resolve(asked, f"voc:{voc}:val", required=True) is asked
    free = calibration.resolve(Calibration(), f"images:{coco}", required=False)
    assert free.data == "shapes:calibration"
    with pytest.raises(BadConfig, match=r"no images to calibrate with are known for images:"):
        calibration.resolve(Calibration(), f"images:{coco}", required=True)


def _voc_with_doubles(folder: Path) -> Path:
    """Six pictures to train on, the last two of which are held out too, one under another name."""
    write_voc(Painted("train", 6), folder)
    root = write_voc(Painted("val", 2), folder)
    shutil.copy(root / "JPEGImages" / "train-004.jpg", root / "JPEGImages" / "other.jpg")
    shutil.copy(root / "Annotations" / "train-004.xml", root / "Annotations" / "other.xml")
    with (root / "ImageSets" / "Main" / "val.txt").open("a") as listed:
        listed.write("other\ntrain-005\n")
    return root


def test_a_split_without_what_another_holds(tmp_path: Path) -> None:
    root = _voc_with_doubles(tmp_path)
    assert len(open_dataset(f"voc:{root}:train")) == 6
    left = open_dataset(f"voc:{root}:train-without-val")
    assert left.split == "train-without-val"
    assert [left.image_id(index) for index in range(len(left))] == [
        f"train-00{number}" for number in range(4)
    ]
    whole = open_dataset(f"voc:{root}:train")
    np.testing.assert_array_equal(left.truth(3).boxes, whole.truth(3).boxes)
    assert left.digest(3) == whole.digest(3)
    assert len(open_dataset(f"voc:{root}:train-without-val", limit=3)) == 3
    held_out = open_dataset(f"voc:{root}+{root}:val-without-train")
    assert [held_out.image_id(index)[-7:] for index in range(len(held_out))] == [
        "val-000",
        "val-001",
    ] * 2


def test_a_split_without_anything_left_is_refused(tmp_path: Path) -> None:
    root = _voc_with_doubles(tmp_path)
    with pytest.raises(BadConfig, match="every image of split 'train' is in 'train' as well"):
        open_dataset(f"voc:{root}:train-without-train")


@pytest.mark.parametrize(
    ("data", "scored", "common"),
    [
        ("coco:{}/coco:val", "coco:{}/coco:val", 4),
        ("coco:{}/coco:train2017-12", "coco:{}/coco:val", 0),
        ("voc:{}/voc:val", "images:{}/voc", 4),
        ("shapes:val", "shapes:val:1000", 4),
        ("shapes:calibration", "shapes:val", 0),
        ("shapes:val", "coco:{}/coco:val", 0),  # found by the evaluation, see test_scoring
    ],
)
def test_images_that_are_scored_do_not_calibrate_unless_forced(written, data, scored, common):
    asked = Calibration(data=data.format(written), images=4)
    scored = scored.format(written)
    if common:
        with pytest.raises(BadConfig, match=r"4 of the 4 images that calibrate .* are also scored"):
            calibration.check_disjoint(asked, scored, 1000)
    else:
        calibration.check_disjoint(asked, scored, 1000)
    forced = Calibration(data=asked.data, images=4, force=True)
    calibration.check_disjoint(forced, scored, 1000)


def test_the_list_names_every_image_and_both_its_hashes(written):
    asked = Calibration(data=f"coco:{written}/coco:train2017-12", images=4, seed=3)
    picked = calibration.pick(asked)
    listed = calibration.listing(asked, picked, "prepared")
    assert (listed.dataset, listed.split, listed.seed) == ("coco", "train2017-12", 3)
    assert len(listed.names) == len(listed.sha256) == len(listed.pixels) == 4
    scenes = Shapes("train", 12)
    digests = {scenes.digest(k) for k in range(12)}
    assert set(listed.pixels) <= digests
    assert not set(listed.sha256) & digests
