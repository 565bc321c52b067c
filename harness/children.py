"""Child processes: one task each, a log, a timeout, and a result file that is whole or absent.

The supervisor sleeps in the kernel until the child ends, so that it does not disturb a timing.
Children end with their parent: each one asks the kernel for that (Linux), so that a killed run
leaves nothing running.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from harness.cache import write_atomic
from harness.errors import ResultsError
from harness.records import decode
from harness.registry import ROOT
from harness.tasks import ChildResult, ExportTask, MeasureTask

LOG_EXCERPT_LINES = 40
SUPERVISOR = "DETBENCH_SUPERVISOR"
"""Environment variable that tells a child the process number of its parent."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_child(
    task: ExportTask | MeasureTask, *, folder: Path, name: str, timeout_s: float
) -> ChildResult:
    """Run one task in a child process and answer what became of it, whatever that was.

    Files go to ``folder``: ``tasks/<name>.json``, its ``.result.json`` and ``logs/<name>.log``.

    Raises:
        ResultsError: ``folder`` cannot be written.
    """
    return Child(task, folder=folder, name=name, timeout_s=timeout_s).end()


class Child:
    """One task in a process of its own, from start to end.

    Args:
        timeout_s: most time that it may take, in all or from one turn to the next.
        inherited: file descriptors that it keeps open.
        more: environment variables that it gets beside the usual ones.

    Raises:
        ResultsError: ``folder`` cannot be written.
    """

    def __init__(
        self,
        task: ExportTask | MeasureTask,
        *,
        folder: Path,
        name: str,
        timeout_s: float,
        inherited: Sequence[int] = (),
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        task_path = folder / "tasks" / f"{name}.json"
        self._result_path = folder / "tasks" / f"{name}.result.json"
        self._log_path = folder / "logs" / f"{name}.log"
        self._timeout_s = timeout_s
        self._started = time.perf_counter_ns()
        write_atomic(task_path, msgspec.json.encode(task))
        try:
            self._result_path.unlink(missing_ok=True)
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            log = self._log_path.open("wb")
        except OSError as error:
            raise ResultsError(
                f"{self._log_path} cannot be written ({error.strerror}): free space"
            ) from None
        command = [sys.executable, "-m", "harness.worker", str(task_path), str(self._result_path)]
        with log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**_environment(task), **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(inherited),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> ChildResult:
        """Wait until it ends, and answer what became of it."""
        try:
            ended = _wait(self._process, self._timeout_s)
        except BaseException:
            self.kill()
            raise
        if not ended:
            return self.late()
        result = _result(self._process.returncode, self._result_path, self._log_path)
        return msgspec.structs.replace(result, elapsed_ns=time.perf_counter_ns() - self._started)

    def late(self) -> ChildResult:
        """Stop it, because its time is up."""
        self.kill()
        return ChildResult(
            state="timeout",
            error=f"stopped after {self._timeout_s:g} s, its limit",
            elapsed_ns=time.perf_counter_ns() - self._started,
        )

    def kill(self) -> None:
        """Stop it and all that it started; harmless where it has ended."""
        _kill(self._process)


def excerpt(log: Path) -> str:
    """The last lines of a log, for a report."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_EXCERPT_LINES:])


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing).

    A parent that died while this process was still starting is noticed by another parent's number.
    """
    if sys.platform != "linux":
        return
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.environ.get(SUPERVISOR, str(os.getppid())) != str(os.getppid()):
        os._exit(1)


def _environment(task: ExportTask | MeasureTask) -> dict[str, str]:
    """The child's environment, with the thread count that math libraries read at import."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    environment[SUPERVISOR] = str(os.getpid())
    if isinstance(task, MeasureTask):
        environment |= dict.fromkeys(THREAD_VARIABLES, str(task.cell.threads))
    return environment


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Sleep until the child ends; False when the time is up."""
    if hasattr(os, "pidfd_open"):
        handle = os.pidfd_open(child.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                if poll.poll(min(left, 3600) * 1000):
                    child.wait()
                    return True
            return False
        finally:
            os.close(handle)
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _result(code: int, result: Path, log: Path) -> ChildResult:
    if result.is_file():
        try:
            return decode(result.read_bytes(), ChildResult, result)
        except ResultsError as error:
            return ChildResult(state="crashed", error=str(error))
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps out of memory" if -code == signal.SIGKILL else ""
        return ChildResult(state="crashed", error=f"killed by {name}{hint}: see {log}")
    return ChildResult(state="crashed", error=f"ended with code {code} and no result: see {log}")
