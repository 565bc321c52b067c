"""Matrix files and what the command line says over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Latency, Matrix, load, overrides
from harness.errors import BadConfig


def _file(folder: Path, text: str) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_asked_is_the_default() -> None:
    assert load(None, {}) == Matrix()


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "name: mine\nimages: 10\nlatency:\n  tier: quick\n  rounds: 3\n")
    matrix = load(path, {"latency.tier": "smoke", "threads": [1, 4]})
    assert (matrix.name, matrix.images, matrix.threads) == ("mine", 10, (1, 4))
    assert matrix.latency == Latency(tier="smoke", rounds=3)


def test_settings_are_scalars_and_lists() -> None:
    found = overrides(["latency.tier=quick", "threads=1,2", "exporters=a:x=1,y=2,b", "images=7"])
    assert found == {
        "latency.tier": "quick",
        "threads": [1, 2],
        "exporters": ["a:x=1,y=2", "b"],
        "images": 7,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imges: 3", r"unknown field `imges`"),
        ("images: many", r"Expected `int`, got `str` - at `\$.images`"),
        ("latency:\n  tier: fast", r"Invalid enum value 'fast' - at `\$.latency.tier`"),
        ("images: 0", "'images' of .* is 0, expected at least 1"),
        ("threads: [0]", "'threads' of .* is 0"),
        ("models: []", "'models' of .* is empty"),
        ("- a\n- b", "holds no keys"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_matrix_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        load(_file(tmp_path, text), {})


@pytest.mark.parametrize("given", ["two", "1,-2", "1.5", ""])
def test_threads_that_are_no_numbers_are_named(given: str) -> None:
    with pytest.raises(BadConfig, match=f"threads '{given}' are no whole numbers"):
        overrides([f"threads={given}"])


def test_a_missing_matrix_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none\.yaml cannot be read"):
        load(tmp_path / "none.yaml", {})


def test_a_setting_below_a_scalar_is_refused() -> None:
    with pytest.raises(BadConfig, match="goes below 'name'"):
        load(None, {"name": "a", "name.b": 1})


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"--set latency\.tier is not key=value"):
        overrides(["latency.tier"])
