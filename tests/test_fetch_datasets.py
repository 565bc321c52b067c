"""Public data sets from a server on loopback that holds small stand-ins."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from harness import cli
from harness.commands import fetch as command
from harness.datasets import open_dataset
from harness.datasets.shapes import Shapes
from harness.datasets.training import training_split
from harness.datasets.writers import write_voc
from harness.errors import DownloadFailed, UnknownName
from harness.fetch import coco_train
from harness.fetch.datasets import SETS, fetch_set
from harness.fetch.open_images import Mirror, fetch_open_images
from harness.fetch.pictures import TRIES, Picture, fetch_pictures
from harness.fetch.remote import Remote
from tests.loopback import Page, serving
from tests.test_fetch_archives import link, tar


def jpeg(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def remote(url: str, body: bytes) -> Remote:
    return Remote(url=url, size_bytes=len(body), md5=hashlib.md5(body).hexdigest())


def tree(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_list_is_complete():
    assert sorted(SETS) == ["coco-val2017", "voc2007", "voc2012"]
    for entry in SETS.values():
        assert entry.licence
        assert all(archive.md5 and archive.size_bytes for archive in entry.archives)


@pytest.fixture
def voc(tmp_path):
    """Two archives that together are a VOC folder, as VOC2007's are."""
    write_voc(Shapes("val", 3), tmp_path / "made")
    files = tree(tmp_path / "made")
    lists = {name: data for name, data in files.items() if "ImageSets" in name}
    rest = {name: data for name, data in files.items() if name not in lists}
    parts = [tar(tmp_path / f"{k}.tar", part) for k, part in enumerate((lists, rest))]
    return [part.read_bytes() for part in parts]


def test_archives_become_a_data_set_that_reads(voc, tmp_path):
    pages = {f"{k}.tar": Page(body, breaks=[200]) for k, body in enumerate(voc)}
    with serving(**pages) as (url, table):
        archives = tuple(remote(f"{url}/{k}.tar", body) for k, body in enumerate(voc))
        entry = SETS["voc2007"]._replace(archives=archives)
        for _ in range(2):
            folder = fetch_set(entry, tmp_path / "out", quiet=True)
        assert len(table["/0.tar"].asked) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["voc2007"]
    data = open_dataset(entry.use.format(folder).replace(":test", ":val"))
    assert len(data) == 3
    assert data.image(2).shape == Shapes("val", 3).image(2).shape


def test_a_wrong_or_harmful_archive_never_becomes_a_data_set(voc, tmp_path):
    harm = tar(tmp_path / "x.tar", {"VOCdevkit/a": b"a"}, link("VOCdevkit/b", "/etc"))
    bodies = {"good": voc[0], "harm": harm.read_bytes(), "cut": voc[1][: len(voc[1]) // 2]}
    with serving(**{name: Page(body) for name, body in bodies.items()}) as (url, _):
        good = remote(f"{url}/good", bodies["good"])
        for name, says in (("harm", "no plain file"), ("cut", "damaged|offers")):
            entry = SETS["voc2012"]._replace(archives=(good, remote(f"{url}/{name}", bodies[name])))
            with pytest.raises(DownloadFailed, match=says):
                fetch_set(entry, tmp_path / "out", quiet=True)
            assert not (tmp_path / "out/voc2012").exists()
        wrong = SETS["voc2012"]._replace(archives=(remote(f"{url}/good", voc[1]),))
        with pytest.raises(DownloadFailed, match="offers"):
            fetch_set(wrong, tmp_path / "out", quiet=True)
        whole = SETS["voc2012"]._replace(archives=(good,))
        assert (fetch_set(whole, tmp_path / "out", quiet=True) / "VOCdevkit").is_dir()


def instances(images: range, split: str) -> bytes:
    shown = [{"id": k, "file_name": f"{k:012d}.jpg", "width": 40, "height": 30} for k in images]
    boxes = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 20.0}
        for k in images
    ]
    kinds = [{"id": 1, "name": "person"}]
    return json.dumps({"images": shown, "annotations": boxes, "categories": kinds}).encode()


def test_coco_comes_with_images_to_calibrate_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(coco_train, "COUNT", 4)
    monkeypatch.setattr(coco_train, "SEED", 1)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        for k in range(2):
            content.writestr(f"val2017/{k:012d}.jpg", jpeg(k))
        content.writestr("annotations/instances_val2017.json", instances(range(2), "val2017"))
        content.writestr("annotations/instances_train2017.json", instances(range(100, 110), "t"))
        content.writestr("annotations/captions_val2017.json", "{}")
    pages = {f"train2017/{k:012d}.jpg": Page(jpeg(k)) for k in range(100, 110)}
    with serving(x=Page(stream.getvalue()), **pages) as (url, table):
        entry = SETS["coco-val2017"]._replace(
            archives=(remote(f"{url}/x", stream.getvalue()),),
            more=lambda folder, quiet: coco_train.add_calibration(
                folder, f"{url}/train2017", quiet=quiet
            ),
        )
        monkeypatch.setitem(command.SETS, "coco-val2017", entry)
        asked = ["fetch", "coco-val2017", "-o", str(tmp_path), "--quiet"]
        lost = table["/train2017/000000000100.jpg"]
        for k in range(100, 110):
            table[f"/train2017/{k:012d}.jpg"].statuses = [503] if k % 2 else []
        monkeypatch.setattr("time.sleep", lambda _: None)
        assert lost.body
        assert cli.main(asked) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "coco-val2017"
    assert f"use it with  --data coco:{folder}:val2017" in said
    assert len(open_dataset(f"coco:{folder}:val2017")) == 2
    name = training_split(f"coco:{folder}:val2017")
    assert name == f"coco:{folder}:train2017-4"
    train = open_dataset(name)
    assert [train.image(k).shape for k in range(len(train))] == [(30, 40, 3)] * 4
    assert sorted(path.name for path in (folder / "annotations").iterdir()) == [
        "instances_train2017-4.json",
        "instances_val2017.json",
    ]


NAMES = "LabelName,DisplayName\n/m/1,Dog\n/m/2,Traffic light\n"
BOXES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf
a,x,/m/1,1,0.1,0.5,0.1,0.5,0
b,x,/m/3,1,0.1,0.5,0.1,0.5,0
a,x,/m/3,1,0.1,0.5,0.1,0.5,0
c,x,/m/2,1,0.1,0.5,0.1,0.5,1
d,x,/m/1,1,0.1,0.5,0.1,0.5,0
e,x,/m/1,1,0.2,0.5,0.1,0.5,0
"""


@pytest.fixture
def open_images():
    pages = {
        "v7/oidv7-class-descriptions-boxable.csv": Page(NAMES.encode()),
        "v5/validation-annotations-bbox.csv": Page(BOXES.encode()),
        **{f"validation/{name}.jpg": Page(jpeg(k)) for k, name in enumerate("ace")},
    }
    with serving(**pages) as (url, table):
        yield Mirror(url, url), table


def test_open_images_of_some_classes(open_images, tmp_path, capsys):
    mirror, table = open_images
    wanted = (["dog", "Traffic light"], "validation", tmp_path)
    for _ in range(2):
        folder = fetch_open_images(*wanted, quiet=True, mirror=mirror)
    assert "1 images are gone and left out, such as d" in capsys.readouterr().err
    assert "/validation/b.jpg" not in table
    data = open_dataset(f"open-images:{folder}:validation")
    assert [data.image_id(k) for k in range(len(data))] == ["a", "c", "e"]
    assert data.labels == ("background", "Dog", "Traffic light")
    assert [data.truth(k).labels.tolist() for k in range(3)] == [[1], [2], [1]]
    assert data.truth(1).crowd.tolist() == [True]
    assert len(table["/validation/a.jpg"].asked) == 1


def test_open_images_goes_on_where_it_broke_and_never_looks_complete(open_images, tmp_path):
    mirror, table = open_images
    table["/validation/e.jpg"].body = b"no picture"
    wanted = (["Dog"], "validation", tmp_path)
    with pytest.raises(DownloadFailed, match=r"1 of 3 pictures .*/e\.jpg brought no picture"):
        fetch_open_images(*wanted, quiet=True, mirror=mirror)
    assert [path.name[0] for path in tmp_path.iterdir()] == [".", "."]
    table["/validation/e.jpg"].body = jpeg()
    folder = fetch_open_images(*wanted, quiet=True, mirror=mirror)
    assert len(open_dataset(f"open-images:{folder}")) == 2
    assert len(table["/validation/a.jpg"].asked) == 1
    few = fetch_open_images(*wanted, limit=1, quiet=True, mirror=mirror)
    assert few != folder
    assert len(open_dataset(f"open-images:{few}")) == 1


@pytest.mark.parametrize(
    ("classes", "split", "says"),
    [
        (["Dgo"], "validation", "has no class 'Dgo': did you mean 'dog'"),
        (["Dog"], "val", "has no split 'val'"),
    ],
)
def test_unknown_classes_and_splits(open_images, tmp_path, classes, split, says):
    with pytest.raises(UnknownName, match=says):
        fetch_open_images(classes, split, tmp_path, quiet=True, mirror=open_images[0])


def test_pictures_are_tried_again_a_few_times(tmp_path):
    waits: list[float] = []
    with serving(good=Page(jpeg(), statuses=[503, 500]), bad=Page(jpeg(), breaks=[9] * 9)) as (
        url,
        table,
    ):
        good = Picture(f"{url}/good", tmp_path / "good.jpg")
        assert fetch_pictures([good], quiet=True, sleep=waits.append) == []
        assert waits == [1.0, 2.0]
        bad = Picture(f"{url}/bad", tmp_path / "bad.jpg")
        with pytest.raises(DownloadFailed, match=rf"broke off at 9 of .*, {TRIES} tries"):
            fetch_pictures([good, bad], quiet=True, sleep=waits.append)
        assert len(table["/bad"].asked) == TRIES
    assert list(tmp_path.iterdir()) == [tmp_path / "good.jpg"]


def test_the_command_says_what_it_lacks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path))
    for arguments, says in (
        (["open-images"], "name the classes: --classes"),
        (["open-images", "--classes", "Dog", "--images", "0"], "--images is 0"),
        (["voc2007", "extra"], "takes no names: extra"),
        (["weights"], "name the weights to fetch"),
    ):
        assert cli.main(["fetch", *arguments]) == cli.WRONG
        assert says in capsys.readouterr().err
