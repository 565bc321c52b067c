"""``detbench show dataset``: counts, sizes and every fault."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from harness import cli
from harness.commands.show_dataset import described, named
from harness.datasets import open_dataset
from harness.datasets.survey import survey
from tests.test_datasets_coco import content
from tests.test_datasets_coco import make as make_coco
from tests.test_datasets_voc import SIZE, make, thing


def test_counts_sizes_and_faults(tmp_path, capsys):
    more = "<difficult>1</difficult>"
    root = make(
        tmp_path,
        {
            "a": SIZE + thing("1 1 40 30") + thing("1 1 4 3", more=more),
            "b": SIZE,
            "c": SIZE + thing("1 1 9 9", name="cat"),
            "d": SIZE + thing("9 9 1 1"),
            "e": SIZE,
        },
    )
    (root / "JPEGImages/e.jpg").write_bytes(b"")
    (root / "JPEGImages/c.jpg").unlink()
    assert cli.main(["show", "dataset", str(root), "--json"]) == cli.FAILED
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["objects"], found["empty_images"]) == (5, 3, 2)
    assert (found["small"], found["medium"], found["large"]) == (2, 1, 0)
    counts = {one["name"]: one for one in found["classes"] if one["objects"]}
    assert counts["dog"] == {
        "name": "dog",
        "objects": 2,
        "images": 1,
        "difficult": 1,
        "crowd": 0,
    }
    assert counts["cat"]["objects"] == 1
    assert found["widths"] == {"least": 40, "median": 40, "most": 40}
    assert found["box_sides"] == {"least": pytest.approx(0.1), "median": 0.55, "most": 1.0}
    assert len(found["problems"]) == 3
    for said in ("c.jpg does not exist", "d.xml, line 1, object 1 ('dog')", "e.jpg is empty"):
        assert sum(said in problem for problem in found["problems"]) == 1
    assert cli.main(["show", "dataset", f"voc:{root}:val"]) == cli.FAILED
    text = capsys.readouterr().out
    assert "problems    3\n" in text
    assert "dog                2        1          1      0" in text


def test_a_clean_data_set_says_so(tmp_path, capsys):
    make_coco(tmp_path, content(area=2000.0))  # the segment's, which counts, not the box's 202.5
    assert cli.main(["show", "dataset", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "objects     1, in COCO's sizes 0 small, 1 medium, 0 large" in said
    assert said.rstrip().endswith("problems    none")


def test_a_bare_path_is_looked_at(tmp_path):
    voc = make(tmp_path / "v/VOCdevkit/VOC2012", {"a": SIZE})
    assert named(str(tmp_path / "v")) == f"voc:{tmp_path}/v"
    assert named(f"{voc}:val") == f"voc:{voc}:val"
    make_coco(tmp_path / "c", content())
    assert named(str(tmp_path / "c")) == f"coco:{tmp_path}/c"
    (tmp_path / "o").mkdir()
    (tmp_path / "o/test-annotations-bbox.csv").write_text("")
    assert named(str(tmp_path / "o")) == f"open-images:{tmp_path}/o"
    assert named("shapes:val") == "shapes:val"
    Image.new("RGB", (9, 8)).save(tmp_path / "o/x.png")
    (tmp_path / "o/test-annotations-bbox.csv").unlink()
    found = survey(open_dataset(named(str(tmp_path / "o"))))
    assert (found.labelled, found.images) == (False, 1)
    assert "objects     no ground truth" in described(found)


def test_show_dataset_without_a_path_says_what_to_write(capsys):
    assert cli.main(["show", "dataset"]) == cli.WRONG
    assert "detbench show dataset voc:/path:val" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images", "objects"),
    [
        ("coco:{}/data/coco-val2017-128", 128, 1074),
        ("voc:{}/data/voc-100:val", 100, None),
        ("voc:{}/data/helmet-voc:val", 437, None),
    ],
)
def test_real_data_reads_clean(shared, name, images, objects):
    found = survey(open_dataset(name.format(shared)))
    assert found.problems == ()
    assert found.images == images
    assert objects in (None, found.objects)
    if "voc-100" in name:
        assert sum(one.difficult for one in found.classes) == 38
    if "coco" in name:
        assert sum(one.crowd for one in found.classes) == 10
