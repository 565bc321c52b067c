"""A child process's entry: ``python -m harness.worker TASK.json RESULT.json``.

Whatever happens in here becomes a `ChildResult`; what cannot be caught (a signal, a full memory)
leaves no result file, which tells the supervisor just as much.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import msgspec

from harness.cache import write_atomic
from harness.children import die_with_parent
from harness.errors import (
    DetbenchError,
    ExportFailed,
    MissingExtra,
    ParityFailed,
    Unsupported,
)
from harness.records import State, encode
from harness.registry import load_file
from harness.tasks import ChildResult, ExportTask, MeasureTask


def main(task_path: Path, result_path: Path) -> int:
    """Do the task, write the result."""
    die_with_parent()
    task = msgspec.json.decode(task_path.read_bytes(), type=ExportTask | MeasureTask)
    write_atomic(result_path, encode(perform(task)))
    return 0


def perform(task: ExportTask | MeasureTask) -> ChildResult:
    """Do the task; every exception becomes the state that it means."""
    try:
        for plugin in task.plugins:
            load_file(Path(plugin))
        if isinstance(task, ExportTask):
            from harness.building import build

            artifact = build(task)
            return ChildResult(state="ok", artifact_id=artifact.id)
        from harness.measuring import measure, merge_parts

        return merge_parts(task) if task.parts else measure(task)
    except (Unsupported, MissingExtra) as error:
        return ChildResult(state="unsupported", error=str(error))
    except ParityFailed as error:
        return ChildResult(state="parity-failed", error=str(error))
    except MemoryError:
        traceback.print_exc()
        return ChildResult(state="crashed", error="out of memory: use a smaller batch or model")
    except DetbenchError as error:
        return ChildResult(state=_failed(task, error), error=str(error))
    except Exception as error:  # a toolchain may raise anything: the log keeps it, the run goes on
        traceback.print_exc()
        first = str(error).strip().splitlines()[:1]
        said = f"{type(error).__name__}: {first[0] if first else 'no message'}"
        return ChildResult(state=_failed(task, error), error=said)


def _failed(task: ExportTask | MeasureTask, error: Exception) -> State:
    exporting = isinstance(task, ExportTask) or isinstance(error, ExportFailed)
    return "export-failed" if exporting else "crashed"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
