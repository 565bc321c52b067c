"""What is wrong with data ends in one sentence that names the file and the line or id."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets import open_dataset
from harness.datasets.coco import Coco
from harness.datasets.open_images import OpenImages
from harness.datasets.voc import Voc
from harness.errors import BadAnnotation, BadConfig, BadImage, BadInput
from harness.evaluation import class_map
from harness.images import image_size, load_image
from tests.test_datasets_coco import content
from tests.test_datasets_coco import make as make_coco
from tests.test_datasets_voc import SIZE, thing
from tests.test_datasets_voc import make as make_voc

HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf,ClassName\n"
GOOD = "a,xclick,/m/1,1,0.1,0.5,0.2,0.6,0,Dog\n"


def said(error: pytest.ExceptionInfo[BadInput]) -> str:
    """The message, which is one sentence in one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


def voc_refuses(root: Path) -> str:
    def read() -> None:
        data = Voc(root)
        data.truth(0)
        data.image(0)

    with pytest.raises((BadAnnotation, BadImage)) as error:
        read()
    return said(error)


def boxes_file(root: Path, rows: str) -> Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "train" / "a.jpg")
    (root / "sub-train-annotations-bbox.csv").write_text(HEAD + rows)
    return root


def test_a_truncated_jpeg(tmp_path):
    root = make_voc(tmp_path, {"a": SIZE})
    path = root / "JPEGImages/a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert re.search(r"a\.jpg cannot be read \(.*truncated.*\): restore it", voc_refuses(root))


def test_an_image_missing_on_disk(tmp_path):
    root = make_voc(tmp_path, {"a": SIZE})
    (root / "JPEGImages/a.jpg").unlink()
    assert re.search(r"JPEGImages/a\.jpg does not exist", voc_refuses(root))


def test_an_annotation_missing_on_disk(tmp_path):
    root = make_voc(tmp_path, {"a": SIZE})
    (root / "Annotations/a.xml").unlink()
    assert re.search(r"annotation .*/a\.xml cannot be read \(No such file", voc_refuses(root))


def test_an_annotation_without_its_image(tmp_path):
    path = make_coco(tmp_path, content(image_id=4))
    with pytest.raises(BadAnnotation) as error:
        Coco(path)
    assert "annotation 7 is of image 4, which the file does not list" in said(error)
    assert str(path) in said(error)
    left = Coco(path, skip_bad=True)
    assert len(left.truth(0).boxes) == 0
    assert left.dropped == (said(error),)


def test_duplicate_ids(tmp_path):
    whole = content()
    whole["annotations"] *= 2
    path = make_coco(tmp_path, whole)
    with pytest.raises(BadAnnotation, match="lists annotation id 7 twice"):
        Coco(path)
    assert len(Coco(path, skip_bad=True).truth(0).boxes) == 1
    whole = content(images=content()["images"] * 2)
    path = make_coco(tmp_path, whole)
    with pytest.raises(BadAnnotation, match="lists image id 3 twice"):
        Coco(path)
    assert len(Coco(path, skip_bad=True)) == 1


def test_a_class_that_is_not_in_the_label_list(tmp_path):
    root = make_voc(tmp_path, {"a": f"{SIZE}\n\n{thing('1 1 9 9', name='dgo')}"})
    (root / "labels.txt").write_text("dog\ncat\n")
    message = voc_refuses(root)
    assert "a.xml, line 3, object 1 ('dgo') is of no known class: did you mean 'dog'?" in message
    with pytest.raises(BadConfig, match="x:val has class 'dgo', which the model does not know"):
        class_map(("background", "dgo"), ("background", "dog"), "x:val")


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("nan 1 9 9", "is not finite"),
        ("1 1 inf 9", "is not finite"),
        ("1e400 1 9 9", "is not finite"),
        ("9 1 1 9", "holds no pixel"),
        ("1 9 9 1", "holds no pixel"),
        ("1 1 99 9", "reaches outside its image of 40x30 pixels"),
        ("-9 1 9 9", "reaches outside its image of 40x30 pixels"),
        ("one 1 9 9", "has xmin 'one', expected a number"),
    ],
)
def test_boxes_that_cannot_be_true_in_voc(tmp_path, box, says):
    root = make_voc(tmp_path, {"a": f"{SIZE}\n{thing('1 1 9 9')}\n{thing(box)}"})
    message = voc_refuses(root)
    assert f"{root}/Annotations/a.xml, line 3, object 2 ('dog') " in message
    assert says in message


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([float("nan"), 1, 2, 2], "is not finite"),
        ([1, 1, float("inf"), 2], "is not finite"),
        ([1, 1, -3, 2], "holds no pixel"),
        ([1, 1, 90, 2], "reaches outside"),
        ([1, 1, 2], "has a bbox of 3 numbers"),
    ],
)
def test_boxes_that_cannot_be_true_in_coco(tmp_path, box, says):
    path = make_coco(tmp_path, content(bbox=box))
    with pytest.raises(BadAnnotation) as error:
        Coco(path).truth(0)
    assert said(error).startswith(f"{path}, annotation 7 of image 3 ")
    assert says in said(error)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,x,/m/1,1,nan,0.5,0.2,0.6,0,Dog\n", "has XMin nan"),
        ("a,x,/m/1,1,x,0.5,0.2,0.6,0,Dog\n", "has XMin 'x'"),
        ("a,x,/m/1,1\n", "has XMin ''"),
        ("a,x,/m/1,1,0.6,0.5,0.2,0.6,0,Dog\n", "holds no pixel"),
        ("a,x,/m/1,1,0.1,1.5,0.2,0.6,0,Dog\n", "reaches outside"),
        ("a,x,/m/2,1,0.1,0.5,0.2,0.6,0,\n", "is of class /m/2, which no"),
    ],
)
def test_boxes_that_cannot_be_true_in_open_images(tmp_path, row, says):
    root = boxes_file(tmp_path, GOOD + row)
    with pytest.raises(BadAnnotation) as error:
        OpenImages(root).truth(0)
    assert said(error).startswith(f"{root}/sub-train-annotations-bbox.csv, line 3 ")
    assert says in said(error)


def test_an_xml_bomb_and_an_external_entity(tmp_path):
    root = make_voc(tmp_path, {"a": SIZE})
    laughs = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for doctype in (
        f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>',
        f'<!DOCTYPE x [<!ENTITY l9 SYSTEM "file://{secret}">]>',
    ):
        text = f"{doctype}<annotation><filename>&l9;</filename>{SIZE}</annotation>"
        (root / "Annotations/a.xml").write_text(text)
        assert "a.xml declares a document type, which is refused" in voc_refuses(root)


def test_a_decompression_bomb_is_refused_without_being_unpacked(tmp_path):
    side = 30_000
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    for read in (load_image, image_size):
        tracemalloc.start()
        with pytest.raises(BadImage, match=r"bomb\.png has more than \d+ pixels"):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


@pytest.mark.parametrize("text", ["[]", "3", '"x"', '{"images": {}}', "null", "{", ""])
def test_a_json_of_the_wrong_shape(tmp_path, text):
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(BadAnnotation) as error:
        Coco(path)
    assert said(error).startswith(str(path))


def test_a_csv_of_the_wrong_shape(tmp_path):
    path = boxes_file(tmp_path, "") / "sub-train-annotations-bbox.csv"
    for data, says in ((b"a,b\n1,2\n", "line 1 lacks the columns"), (b"\xff\xfe\0", "is not CSV")):
        path.write_bytes(data)
        with pytest.raises(BadAnnotation, match=says):
            OpenImages(tmp_path)
    path.write_text(HEAD)
    with pytest.raises(BadAnnotation, match="holds no box"):
        OpenImages(tmp_path)


def test_paths_with_spaces_and_unicode(tmp_path):
    odd = tmp_path / "mes données: été 图 + a"
    names = {"naïve photo 1": SIZE + thing("1 1 9 9"), "写真": SIZE}
    make_voc(odd / "voc", names)
    voc = open_dataset(f"voc:{odd}/voc:val")
    assert [voc.image_id(k) for k in range(2)] == list(names)
    assert voc.image(0).shape == voc.image(1).shape == (30, 40, 3)
    whole = content()
    whole["images"][0]["file_name"] = "sous dossier/é.jpg"
    make_coco(odd / "coco", whole)
    (odd / "coco/images/sous dossier").mkdir()
    (odd / "coco/images/a.jpg").rename(odd / "coco/images/sous dossier/é.jpg")
    assert open_dataset(f"coco:{odd}/coco").image(0).shape == (30, 40, 3)
    boxes_file(odd / "oi", GOOD)
    assert open_dataset(f"open-images:{odd}/oi:train").image(0).shape == (30, 40, 3)
    assert len(open_dataset(f"images:{odd}")) == 4


def test_the_declared_size_decides_whether_an_exif_rotation_counts(tmp_path):
    path = tmp_path / "a.jpg"
    stored = np.zeros((40, 100, 3), np.uint8)
    stored[:, :50] = 255  # the left half of the stored picture is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(stored).save(path, exif=exif, quality=95)
    upright = load_image(path)
    assert upright.shape == (100, 40, 3)
    assert upright[:40].mean() > 250
    for declared, shape in (((100, 40), (40, 100)), ((40, 100), (100, 40)), ((7, 7), (100, 40))):
        assert load_image(path, declared).shape[:2] == shape
        assert image_size(path, declared) == shape[::-1]
    assert load_image(path, (100, 40))[:, :40].mean() > 250
    whole = content(images=[{"id": 3, "file_name": "a.jpg", "width": 100, "height": 40}])
    make_coco(tmp_path / "coco", whole)
    (tmp_path / "coco/images/a.jpg").write_bytes(path.read_bytes())
    assert Coco(tmp_path / "coco").image(0).shape == (40, 100, 3)
    whole["images"][0].update(width=99)
    (tmp_path / "coco/instances.json").write_text(json.dumps(whole))
    with pytest.raises(BadAnnotation, match=r"declares 99x40 pixels, but image .* has 40x100"):
        Coco(tmp_path / "coco").image(0)
