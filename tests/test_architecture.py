"""The arrows of the design: who may import whom, and that looking around loads no framework."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGIN_FOLDERS = {"models", "exporters", "runners"}
FRAMEWORKS = {
    "ai_edge_litert",
    "executorch",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "tensorflow",
    "torch",
    "torchao",
    "tvm",
}
MAY_LOAD_MODELS = {
    "harness/building.py",
    "harness/commands/convert.py",
    "harness/commands/sensitivity.py",
    "harness/commands/train.py",
}
"""They load a checkpoint or train, by the models folder's own shared parts."""


def _imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("harness", PLUGIN_FOLDERS),
        ("models", {"exporters", "runners"}),
        ("exporters", {"models", "runners"}),
        ("runners", {"models", "exporters"}),
    ],
)
def test_folders_import_along_the_arrows_only(folder: str, forbidden: set[str]) -> None:
    wrong = {}
    for path in _files(folder):
        name = path.relative_to(ROOT).as_posix()
        allowed = {"models"} if name in MAY_LOAD_MODELS else set()
        if found := (_imports(path) & forbidden) - allowed:
            wrong[name] = found
    assert not wrong


def test_the_core_imports_no_framework() -> None:
    core = {path.relative_to(ROOT).as_posix(): _imports(path) for path in _files("harness")}
    assert {name: found & FRAMEWORKS for name, found in core.items() if found & FRAMEWORKS} == {}


def _loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after ``code`` ran in a fresh interpreter."""
    listing = "sorted(m.partition('.')[0] for m in sys.modules)"
    script = f"{code}\nimport sys, json; print(json.dumps({listing}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import harness",
        "import harness.cli; harness.cli.build_parser()",
        "from harness.interfaces import *; [r.names() for r in (MODELS, EXPORTERS, RUNNERS)]",
        "from harness.interfaces import EXPORTERS as E, RUNNERS as R\n"
        "[r.get(n) for r in (E, R) for n in r.names()]",
        "import harness.execute, harness.plan, harness.measuring, harness.worker, harness.report",
    ],
)
def test_looking_around_loads_no_framework(code: str) -> None:
    assert _loaded_by(code) & FRAMEWORKS == set()


def test_a_runner_needs_no_torch_to_be_loaded_in_a_child() -> None:
    code = "import harness.worker, harness.measuring\nfrom harness.interfaces import RUNNERS\n"
    code += "[RUNNERS.get(n) for n in RUNNERS.names()]"
    assert "torch" not in _loaded_by(code)


def test_no_plugin_file_shadows_another_module() -> None:
    names = {p.stem for folder in PLUGIN_FOLDERS for p in (ROOT / folder).glob("[!_]*.py")}
    assert names & (FRAMEWORKS | set(sys.stdlib_module_names)) == set()


def test_every_package_is_listed_for_packaging() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    folders = {"exporters", "harness", "models", "runners"}
    there = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for folder in folders
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == there
