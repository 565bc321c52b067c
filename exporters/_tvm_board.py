"""Timing candidates of kernels on a board over TVM's RPC, for targets that are elsewhere."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from exporters import _tvm_build
from exporters._tvm_target import CpuTarget
from exporters._tvm_time import ROUNDS
from harness.boards import Address, address, connect, reason
from harness.errors import BadConfig, ExportFailed
from harness.extras import require

NONE = "none"
LEAST_MS = 1
"""Of a timed sample."""

LIBRARY = "candidates.so"


def parse(text: str) -> Address | None:
    """``HOST:PORT`` or ``KEY@HOST:PORT``; ``none`` is None.

    Raises:
        BadConfig: it is neither.
    """
    if text == NONE:
        return None
    where = address(text)
    if where is None:
        raise BadConfig(
            f"board={text} is no address: give HOST:PORT of a server, KEY@HOST:PORT of a tracker,"
            f" or {NONE}"
        )
    return where


class OnBoard:
    """A `_tvm_time.Timer` that runs candidates on a board, by its own clock."""

    def __init__(self, where: Address) -> None:
        self._where = where

    def __call__(
        self, module: Any, calls: Sequence[tuple[str, list[NDArray[Any]]]], target: CpuTarget
    ) -> list[float]:
        """Build, upload, run.

        Raises:
            CellCrashed: nobody answers at the address.
            ExportFailed: the board cannot run the target's code, or is lost meanwhile.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / LIBRARY
            link = partial(_tvm_build.link, target=target.name)
            _tvm_build.compile_module(module, target).export_library(str(path), fcompile=link)
            data = bytearray(path.read_bytes())
        remote = connect(self._where)
        try:
            remote.upload(data, target=LIBRARY)
            library, device = remote.load_module(LIBRARY), remote.cpu(0)
            return [_least(library, device, name, arguments) for name, arguments in calls]
        except Exception as error:  # TVM's RPC raises several types
            raise ExportFailed(
                f"{self._where} does not run kernels for {target.text} ({reason(error)}): look"
                " whether it is such a board, and whether its server still runs"
            ) from error
        finally:
            del remote
            gc.collect()  # the connection ends with the last of TVM's objects


def _least(library: Any, device: Any, name: str, arguments: Sequence[NDArray[Any]]) -> float:
    tensor = require("tvm", extra="tvm").runtime.tensor
    timer = library.time_evaluator(name, device, number=1, repeat=ROUNDS, min_repeat_ms=LEAST_MS)
    return float(min(timer(*(tensor(array, device) for array in arguments)).results))
