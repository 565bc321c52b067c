"""Timing candidates of kernels: compiled together, run in turns, each time remembered.

Times are kept in the cache in one file a target and version of TVM, by what they depend on, so that
a search that was stopped goes on where it was. The least time of each candidate counts, which other
work on the machine disturbs least.
"""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_build
from exporters._tvm_target import CpuTarget
from harness.cache import cache_dir, sha256_text, write_atomic
from harness.extras import require
from harness.provenance import source_digest

ROUNDS = 31
LEAST_NS = 200_000
"""Of a timed sample; shorter kernels are called several times."""


@cache
def code_digest(*names: str) -> str:
    """SHA-256 of the source of modules of this folder and of all that they import of it.

    A key that holds it is never taken for a kernel that was written by other code.
    """
    return source_digest(tuple(f"exporters/{name}.py" for name in sorted(code_files(*names))))


def code_files(*names: str) -> set[str]:
    """Modules of this folder and all that they import of it."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(Path(__file__).with_name(f"{name}.py"))
    return found


def _imports(path: Path) -> set[str]:
    """Names of modules of this folder that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "exporters":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("exporters."):
            found.add(str(node.module).removeprefix("exporters."))
    return found


class Candidate(NamedTuple):
    """One way to compute something.

    Attributes:
        key: all that its time depends on, beside the target.
        kind: hashable; candidates of one kind share a function.
        write: makes the function, a ``PrimFunc`` without threads, by its name.
        arguments: for the function, with room for the result; None for random numbers.
    """

    key: str
    kind: Any
    write: Callable[[str], Any]
    arguments: Callable[[], list[NDArray[Any]]] | None = None


class Timer(Protocol):
    """Runs compiled functions; seconds of each call, the least of some."""

    def __call__(
        self, module: Any, calls: Sequence[tuple[str, list[NDArray[Any]]]], target: CpuTarget
    ) -> list[float]: ...


class Times:
    """What is known for a target, and a way to learn more.

    ``possible`` is False where it cannot be learnt: neither this machine nor a board runs its code.
    ``where`` names the board, whose times are kept apart.

    Attributes:
        folder: for what else is known of the target, beside the file of times.
    """

    def __init__(self, target: CpuTarget, timer: Timer | None = None, where: str = "") -> None:
        self.target = target
        self.possible = target.here or timer is not None
        self._timer = timer or here
        version = str(require("tvm", extra="tvm").__version__)
        passes = (*_tvm_build.SLOW_PASSES, *_tvm_build.MERGING_PASSES)
        code = " ".join((*target.features, *passes))
        name = sha256_text([target.text, where, version, code])[:16]
        self.folder: Path = cache_dir("tvm-kernels") / name
        self._path = self.folder.with_suffix(".json")
        self._known = _read(self._path)

    def known(self, candidate: Candidate) -> float | None:
        """Seconds, if it was timed before."""
        return self._known.get(candidate.key)

    def missing(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those that were not timed yet, each once."""
        return list({c.key: c for c in candidates if c.key not in self._known}.values())

    def measure(self, candidates: Iterable[Candidate]) -> dict[str, float]:
        """Seconds by key; what is missing is timed and written down."""
        wanted = list(candidates)
        if missing := self.missing(wanted):
            found = self.time(missing)
            self._known |= dict(zip((c.key for c in missing), found, strict=True))
            self._write()
        return {c.key: self._known[c.key] for c in wanted}

    def _write(self) -> None:
        write_atomic(self._path, json.dumps(self._known, indent=0).encode())

    def in_turns(self, candidates: Sequence[Candidate], *, measure: bool) -> list[float] | None:
        """Seconds of candidates that were timed beside each other; None where they were not yet.

        Times of different hours tell more about what else the machine did than about the kernels.
        """
        if len(candidates) < 2:
            return [self._known[one.key] for one in candidates]
        together = [one.key for one in candidates]
        keys = [sha256_text(["in turns", key, *together]) for key in together]
        if measure and any(key not in self._known for key in keys):
            self._known |= dict(zip(keys, self.time(candidates), strict=True))
            self._write()
        found = [self._known[key] for key in keys if key in self._known]
        return found if len(found) == len(keys) else None

    def time(self, candidates: Sequence[Candidate]) -> list[float]:
        """Seconds of each, which are not written down."""
        functions: dict[str, Any] = {}
        names: dict[Hashable, str] = {}
        calls: list[tuple[str, list[NDArray[Any]]]] = []
        for candidate in candidates:
            if candidate.kind not in names:
                name = names[candidate.kind] = f"candidate{len(names)}"
                functions[name] = candidate.write(name)
            name = names[candidate.kind]
            make = candidate.arguments
            calls.append((name, make() if make else random_arguments(functions[name])))
        return self._timer(require("tvm", extra="tvm").IRModule(functions), calls, self.target)


def here(
    module: Any, calls: Sequence[tuple[str, list[NDArray[Any]]]], target: CpuTarget
) -> list[float]:
    """A `Timer` on this machine, by the CPU time of this thread."""
    tensor = require("tvm", extra="tvm").runtime.tensor
    built = _tvm_build.compile_module(module, target)
    least = [float("inf")] * len(calls)
    for number in range(ROUNDS):
        for index, (name, arguments) in enumerate(calls):
            function = built[name]
            tensors = [tensor(array) for array in arguments]
            function(*tensors)
            repeat = 1 if number == 0 else max(1, int(LEAST_NS / (least[index] * 1e9)))
            start = time.thread_time_ns()
            for _ in range(repeat):
                function(*tensors)
            least[index] = min(least[index], (time.thread_time_ns() - start) / repeat / 1e9)
    return least


def random_arguments(function: Any) -> list[NDArray[Any]]:
    """Numbers for each buffer of a ``PrimFunc``."""
    rng = np.random.default_rng(0)
    shapes = [parameter.shape for parameter in function.params]
    return [rng.normal(size=[int(n) for n in shape]).astype(np.float32) for shape in shapes]


def _read(path: Path) -> dict[str, float]:
    """Times by key; none where the file is absent or is not what this program writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): float(seconds) for key, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
