"""TVM's runtime without its compiler, for the runners that use it."""

from __future__ import annotations

import os
import sys
from typing import Any

from harness.errors import ArtifactDamaged
from harness.extras import require
from harness.records import Artifact

FASTEST_CORES = 1
"""Mode of ``runtime.config_threadpool``: workers on the fastest cores (kBig in TVM)."""


def import_runtime() -> Any:
    """Import TVM's runtime library alone: without its compiler, and without torch.

    TVM loads both wherever they are installed. A session uses neither, and their memory and
    loading time (300 MB and some seconds) are no part of what a device needs.
    """
    if "tvm" not in sys.modules and "torch" not in sys.modules:
        os.environ["TVM_USE_RUNTIME_LIB"] = "1"
        sys.modules["torch"] = None  # type: ignore[assignment]  # "not to be found", to Python
        try:
            require("tvm", extra="tvm-runtime")
        finally:
            del sys.modules["torch"], os.environ["TVM_USE_RUNTIME_LIB"]
    require("tvm.runtime.vm", extra="tvm-runtime")
    return require("tvm", extra="tvm-runtime")


def check_version(version: str, artifact: Artifact, where: str = "this") -> None:
    """Raise ArtifactDamaged where another TVM built the module: it runs on that one only."""
    made_by = artifact.toolchain.get("apache-tvm", version)
    if made_by != version:
        raise ArtifactDamaged(
            f"{artifact.id} was built by TVM {made_by} and {where} is {version}:"
            f" export {artifact.model} again, or install apache-tvm=={made_by}"
        )
