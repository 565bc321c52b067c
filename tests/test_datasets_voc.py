"""Pascal VOC: the pixel convention, where files are sought, and every fault as one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets.voc import CLASSES, Voc
from harness.errors import BadAnnotation, BadConfig, BadImage, UnknownName

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def thing(box: str, *, name: str = "dog", more: str = "<difficult>0</difficult>") -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in edges)
    return f"<object><name>{name}</name>{more}<bndbox>{inner}</bndbox></object>"


def make(root: Path, files: dict[str, str], *, split: str = "val") -> Path:
    """A VOC2012 folder with one 40 x 30 picture per annotation."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name, inner in files.items():
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{inner}</annotation>")
        Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n in files))
    return root


def refused(folder: Path) -> str:
    with pytest.raises(BadAnnotation) as caught:
        Voc(folder).truth(0)
    message = str(caught.value)
    assert str(folder / "Annotations" / "a.xml") in message
    assert "\n" not in message
    return message


def test_inclusive_pixels_from_one_become_continuous_edges(tmp_path):
    inner = SIZE + thing("1 1 40 30") + thing("5 6 5 6", more="<difficult>1</difficult>")
    truth = Voc(make(tmp_path, {"a": inner})).truth(0)
    assert truth.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 5, 6]]
    assert truth.boxes.dtype == np.float32
    assert truth.labels.dtype == np.int64
    assert truth.difficult.tolist() == [False, True]
    assert not truth.crowd.any()
    assert truth.area is None


def test_an_image_without_objects_has_empty_truth(tmp_path):
    truth = Voc(make(tmp_path, {"a": SIZE})).truth(0)
    assert truth.boxes.shape == (0, 4)
    assert truth.labels.shape == truth.difficult.shape == (0,)


def test_fractions_are_kept_and_one_pixel_outside_is_rounding(tmp_path):
    inner = SIZE + thing("0 2.5 41 29.5")
    assert Voc(make(tmp_path, {"a": inner})).truth(0).boxes.tolist() == [[-1, 1.5, 41, 29.5]]


def test_boxes_of_body_parts_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    inner = SIZE + thing("1 1 9 9", name="person", more=part)
    data = Voc(make(tmp_path, {"a": inner}))
    assert [data.labels[label] for label in data.truth(0).labels] == ["person"]


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (SIZE + thing("9 1 8 5"), "object 1 ('dog') has the box (8, 0, 8, 5)"),
        (SIZE + thing("9 1 5 5"), "holds no pixel"),
        (SIZE + thing("1 1 43 5"), "reaches outside its image of 40x30"),
        (SIZE + thing("-9 1 20 5"), "reaches outside"),
        (SIZE + thing("1 1 nan 5"), "not finite"),
        (SIZE + thing("1 1 inf 5"), "not finite"),
        (SIZE + thing("1 1 wide 5"), "has xmax 'wide', expected a number"),
        (SIZE + "<object><name>dog</name></object>", "lacks its bndbox"),
        (SIZE + thing("1 1 5 5", name=""), "lacks its name"),
        (SIZE + thing("1 1 2 2", more="<difficult>maybe</difficult>"), "has difficult 'maybe'"),
        ("<size><width>40</width></size>", "size has height None, expected a number"),
        ("<object>", "is not XML (mismatched tag"),
        (SIZE + "&unknown;", "is not XML"),
    ],
)
def test_impossible_ground_truth_is_one_sentence(tmp_path, inner, says):
    assert says in refused(make(tmp_path, {"a": inner}))


def test_an_unknown_class_names_the_nearest(tmp_path):
    folder = make(tmp_path, {"a": SIZE + thing("1 1 5 5", name="hose")})
    with pytest.raises(BadAnnotation, match=r"object 1 \('hose'\).*did you mean 'horse'"):
        Voc(folder, labels=CLASSES).truth(0)


def test_entities_are_refused_before_they_grow(tmp_path):
    folder = make(tmp_path, {"a": SIZE})
    laughs = "".join(f'<!ENTITY l{k + 1} "{f"&l{k};" * 10}">' for k in range(9))
    path = folder / "Annotations/a.xml"
    path.write_text(f'<!DOCTYPE z [<!ENTITY l0 "ha">{laughs}]><annotation>&l9;</annotation>')
    assert "declares a document type" in refused(folder)
    path.write_text(
        '<!DOCTYPE z [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>'
    )
    assert "declares a document type" in refused(folder)
    path.write_text('<!DOCTYPE annotation SYSTEM "http://example.org/a.dtd"><annotation/>')
    assert "declares a document type" in refused(folder)


def test_missing_empty_and_huge_annotations_are_refused(tmp_path, monkeypatch):
    folder = make(tmp_path, {"a": SIZE})
    path = folder / "Annotations/a.xml"
    path.write_bytes(b"")
    assert "is not XML" in refused(folder)
    monkeypatch.setattr("harness.datasets.voc.LARGEST_XML", 3)
    path.write_bytes(b"<annotation/>")
    assert "larger than" in refused(folder)
    path.unlink()
    assert "cannot be read" in refused(folder)


def test_bad_images_are_named(tmp_path):
    data = Voc(
        make(
            tmp_path,
            {"a": SIZE, "b": SIZE, "c": "<size><width>9</width><height>30</height></size>"},
        )
    )
    data.path(0).write_bytes(b"")
    with pytest.raises(BadImage, match=r"a\.jpg is empty"):
        data.image(0)
    data.path(1).unlink()
    with pytest.raises(BadImage, match=r"b\.jpg does not exist"):
        data.image(1)
    with pytest.raises(BadImage, match=r"b\.jpg cannot be read"):
        data.digest(1)
    with pytest.raises(BadAnnotation, match=r"c\.xml declares 9x30 pixels, but .*c\.jpg has 40x30"):
        data.image(2)


def test_without_a_size_the_pictures_own_counts(tmp_path):
    zero = "<size><width>0</width><height>0</height></size>"
    data = Voc(make(tmp_path, {"a": thing("1 1 40 30"), "b": zero + thing("1 1 50 30")}))
    assert data.truth(0).boxes.tolist() == [[0, 0, 40, 30]]
    with pytest.raises(BadAnnotation, match="40x30"):
        data.truth(1)


def test_labels_are_given_or_listed_or_vocs_or_found(tmp_path):
    folder = make(
        tmp_path, {"a": SIZE + thing("1 1 5 5"), "b": SIZE + thing("1 1 5 5", name="cat")}
    )
    assert Voc(folder).labels == ("background", *CLASSES)
    make(folder, {"c": SIZE + thing("1 1 5 5", name="zebra")})
    assert Voc(folder).labels == ("background", "cat", "dog", "zebra")
    (folder / "labels.txt").write_text("background\nzebra\n\ndog\n")
    assert Voc(folder).labels == ("background", "zebra", "dog")
    data = Voc(folder, labels=["cow", "zebra"])
    assert data.labels == ("background", "cow", "zebra")
    assert data.truth(0).labels.tolist() == [2]


def test_the_folder_is_found_from_above_and_pictures_by_any_suffix(tmp_path):
    root = make(tmp_path / "VOCdevkit" / "VOC2012", {"a": SIZE, "b.1": SIZE})
    for start in (root, tmp_path / "VOCdevkit", tmp_path):
        assert Voc(start).folder == root
    (root / "JPEGImages/b.1.jpg").rename(root / "JPEGImages/b.1.PNG")
    assert Voc(root).path(1).name == "b.1.PNG"
    make(tmp_path / "VOCdevkit" / "VOC2007", {"a": SIZE})
    with pytest.raises(BadConfig, match="holds VOC2007, VOC2012: give the path of one"):
        Voc(tmp_path)
    with pytest.raises(BadConfig, match="no VOC layout"):
        Voc(root / "JPEGImages")
    with pytest.raises(BadConfig, match="not a folder"):
        Voc(tmp_path / "none")


def test_splits(tmp_path):
    root = make(tmp_path, {"a": SIZE, "b": SIZE}, split="train")
    assert Voc(root).split == "train"
    make(tmp_path, {"c": SIZE}, split="test")
    assert Voc(root).split == "test"
    make(tmp_path, {"d": SIZE}, split="val")
    assert Voc(root).split == "val"
    assert Voc(root).image_id(0) == "d"
    assert len(Voc(root, "train")) == 2
    assert len(Voc(root, "train", limit=1)) == 1
    with pytest.raises(UnknownName, match="did you mean 'train'"):
        Voc(root, "trian")
    (root / "ImageSets/Main/val.txt").write_text("dog_1  1\ncat_2 -1\n")
    assert [Voc(root).image_id(k) for k in range(2)] == ["dog_1", "cat_2"]
    (root / "ImageSets/Main/val.txt").write_text("a\na\n")
    with pytest.raises(BadAnnotation, match=r"val\.txt, line 2 lists image a again"):
        Voc(root)
    (root / "ImageSets/Main/val.txt").write_text("\n")
    with pytest.raises(BadConfig, match="lists no image"):
        Voc(root)
    (root / "ImageSets/Main/val.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadConfig, match="cannot be read as text"):
        Voc(root)
    for path in (root / "ImageSets/Main").iterdir():
        path.unlink()
    with pytest.raises(BadConfig, match="holds no list"):
        Voc(root)


def test_val_and_test_missing_and_several_lists_is_a_question(tmp_path):
    root = make(tmp_path, {"a": SIZE}, split="train")
    make(root, {"b": SIZE}, split="holdout")
    with pytest.raises(BadConfig, match="add one of :holdout, :train"):
        Voc(root)


def test_class_lists_are_no_splits(tmp_path):
    root = make(tmp_path, {"a": SIZE}, split="all")
    make(root, {"a": SIZE}, split="dog_all")
    assert Voc(root).split == "all"
    assert Voc(root, "dog_all").split == "dog_all"
    with pytest.raises(UnknownName, match=r"known: all$"):
        Voc(root, "train")


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    root = make(tmp_path, {"a": SIZE + thing("1 1 5 5"), "b": "<broken>"})
    data = Voc(root, labels=["dog"])
    assert data.truth(0).labels.tolist() == [1]


def test_real_voc_photos(shared: Path):
    data = Voc(shared / "data" / "voc-100")
    truths = [data.truth(index) for index in range(len(data))]
    assert len(data) == 100
    assert data.labels == ("background", *CLASSES)
    assert sum(int(truth.difficult.sum()) for truth in truths) == 38
    place = [data.image_id(index) for index in range(100)].index("2007_001027")
    assert data.truth(place).boxes[0].tolist() == [202, 173, 254, 273]
    assert data.image(place).shape == (375, 500, 3)


def test_real_helmet_photos_read_clean(shared: Path):
    folder = shared / "data" / "helmet-voc"
    counts = {}
    for split in ("train", "val"):
        data = Voc(folder, split)
        boxes = sum(len(data.truth(index).boxes) for index in range(len(data)))
        counts[split] = (len(data), boxes)
        assert data.labels == ("background", "head", "helmet")
    assert counts == {"train": (1663, 7275), "val": (437, 1874)}
    assert max(Voc(folder, "val").image(0).shape) <= 416
