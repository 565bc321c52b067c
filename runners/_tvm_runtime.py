"""TVM's runtime without its compiler, for the runners that use it."""

from __future__ import annotations

import os
import sys
from typing import Any

from harness.extras import require

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
