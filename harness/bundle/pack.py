"""Make a bundle: a zip that Python runs, the same bytes for the same input."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import artifacts
from harness.cache import sha256_bytes, write_atomic
from harness.errors import BadInput, Unsupported
from harness.interfaces import RUNNERS
from harness.provenance import git_revision
from harness.records import Artifact
from harness.registry import ROOT

FIXED = (2020, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/env python3\n"


def pack(folders: Sequence[Path], output: Path) -> list[Artifact]:
    """Write ``output``; answers the artifacts in it.

    Raises:
        ArtifactDamaged: a folder is not an artifact, or not what its manifest says.
        Unsupported: no runner runs one of them.
        BadInput: none given, the same one twice, or one without golden answers.
    """
    if not folders:
        raise BadInput("there is nothing to pack: give folders made by detbench export")
    found = [artifacts.load(folder) for folder in folders]
    ids = [artifact.id for artifact in found]
    for folder, artifact in zip(folders, found, strict=True):
        if ids.count(artifact.id) > 1:
            raise BadInput(f"{artifact.id} is given twice: give each artifact once")
        if not any(entry.role == "golden" for entry in artifact.files):
            raise BadInput(f"{folder} has no golden answers, so a device could not check it")
    files = {name: path.read_bytes() for name, path in _sources(found)}
    for number, (folder, artifact) in enumerate(zip(folders, found, strict=True)):
        place = f"artifacts/{number:02d}-{artifact.exporter}"
        for name in (artifacts.MANIFEST, *(entry.path for entry in artifact.files)):
            files[f"{place}/{name}"] = (folder / name).read_bytes()
    revision, dirty = git_revision()
    manifest = {
        "git_revision": revision,
        "git_dirty": dirty,
        "artifacts": ids,
        "files": {name: sha256_bytes(data) for name, data in files.items()},
    }
    files["bundle.json"] = json.dumps(manifest, indent=1).encode() + b"\n"
    write_atomic(output, SHEBANG + _zip(files))
    return found


def _sources(found: Sequence[Artifact]) -> Iterator[tuple[str, Path]]:
    """The core and the runners that the artifacts need, by name in the bundle."""
    for path in sorted((ROOT / "harness").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path
    yield "__main__.py", ROOT / "harness/bundle/launch.py"
    needed = set()
    for artifact in found:
        able = {n for n in RUNNERS.names() if artifact.format in RUNNERS.get(n).formats}
        if not able:
            raise Unsupported(f"no runner runs format {artifact.format} of {artifact.id}")
        needed |= able
    for path in sorted((ROOT / "runners").glob("*.py")):
        if path.stem in needed or path.stem.startswith("_"):
            yield f"runners/{path.name}", path


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, FIXED)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()
