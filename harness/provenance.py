"""What a result depends on: source files, installed versions, the git revision."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterable
from importlib import metadata

from harness.cache import sha256_file, sha256_text
from harness.registry import ROOT

EXPORT_SOURCES = (
    "models",
    "exporters",
    "harness/building.py",
    "harness/calibration.py",
    "harness/images.py",
    "harness/profile.py",
    "harness/recipes.py",
)
MEASURE_SOURCES = (
    "runners",
    "harness/accuracy",
    "harness/boxes.py",
    "harness/clocks.py",
    "harness/decode.py",
    "harness/detections.py",
    "harness/early.py",
    "harness/evaluation.py",
    "harness/fidelity.py",
    "harness/images.py",
    "harness/profile.py",
    "harness/latency.py",
    "harness/measuring.py",
    "harness/outputs.py",
    "harness/opened.py",
    "harness/parity.py",
    "harness/policies.py",
    "harness/scoring.py",
    "harness/suppression.py",
    "harness/threads.py",
    "harness/timing.py",
    "harness/turns.py",
)


@functools.cache
def source_digest(parts: tuple[str, ...]) -> str:
    """SHA-256 over the Python files of ``parts``, folders or files below the repository root."""
    files = []
    for part in parts:
        path = ROOT / part
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sha256_text(f"{path.relative_to(ROOT)} {sha256_file(path)}" for path in files)


@functools.cache
def distribution_of(module: str) -> str:
    """Name of the distribution that provides an import name: ``PIL`` is ``pillow``."""
    return _distributions().get(module, [module])[0]


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution, without importing anything; absent ones are left out."""
    found = {}
    for module in modules:
        name = distribution_of(module.partition(".")[0])
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


@functools.cache
def git_revision() -> tuple[str, bool]:
    """Revision of the checkout, and whether it has uncommitted changes; unknown without git.

    A bundle for a device says what it was packed from.
    """
    bundle = ROOT / "bundle.json"
    if bundle.is_file():
        packed = json.loads(bundle.read_text(encoding="utf-8"))
        return str(packed["git_revision"]), bool(packed["git_dirty"])
    try:
        revision = _git("rev-parse", "HEAD").strip()
        return revision, bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return "unknown", True


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout
