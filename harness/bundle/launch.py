"""``python bundle.zip run``: the bundle's ``__main__.py``. Standard library only, Python 3.11 on.

Unpacks the bundle, holds every file to its hash, lends stand-ins for small libraries that are not
installed, and starts the measuring in the unpacked folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

LENT = ("msgspec", "psutil", "PIL", "tqdm")


def main(arguments: list[str]) -> int:
    bundle = Path(__file__).resolve().parent
    if sys.version_info < (3, 11):  # noqa: UP036  # a device may have any Python
        print(f"this bundle needs Python 3.11 or newer, this is {sys.version.split()[0]}")
        return 2
    if importlib.util.find_spec("numpy") is None:
        print("this bundle needs numpy and a runtime: run  pip install numpy onnxruntime")
        return 2
    work = Path(tempfile.mkdtemp(prefix="detbench-"))
    try:
        wrong = unpack(bundle, work)
        if wrong:
            print(f"{bundle} is damaged: {wrong}; copy it again")
            return 2
        for name in LENT:
            if importlib.util.find_spec(name) is None:
                shutil.copyfile(work / "harness/bundle/shims" / f"{name}.py", work / f"{name}.py")
        environment = {**os.environ, "DETBENCH_CALLED_FROM": os.getcwd()}
        command = [sys.executable, "-m", "harness.bundle.device", *arguments]
        return subprocess.run(command, cwd=work, env=environment).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)


def unpack(bundle: Path, work: Path) -> str:
    """Put the bundle's files into ``work``; says what is wrong with one, else nothing."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(work)
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        return str(error)
    listed = json.loads((work / "bundle.json").read_text(encoding="utf-8"))["files"]
    for name, sha256 in listed.items():
        path = work / name
        if not path.is_file():
            return f"{name} is missing"
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return f"{name} has other bytes than were packed"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
