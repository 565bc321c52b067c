"""Plug-ins by name: listing imports nothing, names are unique, unknown names suggest."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BadConfig, UnknownName
from harness.interfaces import EXPORTERS, MODELS, RUNNERS
from harness.registry import Registry, load_file


def test_names_are_the_files_of_the_folder() -> None:
    folder = Path(__file__).parents[1] / "exporters"
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(EXPORTERS.names())


@pytest.mark.parametrize(
    ("registry", "name", "said"),
    [
        (EXPORTERS, "onnx_int9", "unknown exporter 'onnx_int9': did you mean 'onnx_int8'"),
        (RUNNERS, "ort_gpu", "unknown runner 'ort_gpu': did you mean 'ort_cpu'"),
        (MODELS, "mb2_ssd_light", "unknown model 'mb2_ssd_light': did you mean 'mb2_ssd_lite'"),
        (MODELS, "_ssd", "unknown model '_ssd'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(registry: Registry, name: str, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        registry.get(name)


def test_a_second_definition_names_both_places(tmp_path: Path) -> None:
    code = (
        "from harness.interfaces import RUNNERS, Runner\n"
        "@RUNNERS.register\nclass Twice(Runner):\n    name = 'twice'\n"
        "    modules, formats, extra = ('no_such_framework',), frozenset(), 'all'\n"
        "    def open(self, artifact, folder, options): ...\n"
    )
    first, second = tmp_path / "one.py", tmp_path / "two.py"
    first.write_text(code)
    second.write_text(code)
    load_file(first)
    with pytest.raises(BadConfig, match=r"'twice' is defined twice, in .*one\.py and in .*two\.py"):
        load_file(second)


def test_loading_the_same_file_again_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "again.py"
    path.write_text(
        "from harness.interfaces import MODELS\n"
        "@MODELS.register\ndef again_model(labels):\n    return None\n"
    )
    load_file(path)
    load_file(path)
    assert "again_model" in MODELS.names()


@pytest.mark.parametrize(
    ("text", "said"), [("1 / 0", "fails on import"), ("def (", "fails on import")]
)
def test_a_plugin_that_fails_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(BadConfig, match=rf"bad\.py {said}"):
        load_file(path)


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nowhere\.py is not a Python file"):
        load_file(tmp_path / "nowhere.py")
