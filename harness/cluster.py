"""Shards on a Dask cluster, with ``dask.distributed`` as it is.

The artifact travels with the task, and what was found travels back; the data set must lie under the
same path on every worker, and the same detbench must be installed there. A worker runs a shard in a
child process, as this machine would.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from harness.cache import write_atomic
from harness.children import run_child
from harness.errors import BadConfig
from harness.extras import require
from harness.provenance import MEASURE_SOURCES, source_digest
from harness.tasks import ChildResult, MeasureTask

CONNECT_S = 15


class Cluster:
    """A connection to a scheduler. Use as a context manager.

    Raises:
        BadConfig: no scheduler answers.
        MissingExtra: ``distributed`` is not installed.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        distributed = require("distributed", extra="cluster")
        self._timeout_s = timeout_s
        try:
            self._client: Any = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadConfig(
                f"no Dask scheduler answers at {address} ({error}): start one with dask scheduler,"
                " and give its address, such as tcp://host:8786"
            ) from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def workers(self) -> int:
        """How many threads of work the cluster offers now; at least 1."""
        counts: dict[str, int] = self._client.nthreads()
        return max(1, sum(counts.values()))

    def run(self, task: MeasureTask, name: str) -> ChildResult:
        """Run a shard on some worker; its detections are on this machine when it answers."""
        folder = Path(task.folder)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        digest = source_digest(MEASURE_SOURCES)
        future = self._client.submit(
            run_here,
            msgspec.json.encode(task),
            files,
            digest,
            self._timeout_s,
            pure=False,
            key=name,
        )
        try:
            answer, found = future.result()
        except Exception as error:  # whatever the cluster or its worker died of
            said = f"the cluster could not run it ({type(error).__name__}: {error})"
            return ChildResult(state="crashed", error=said)
        finally:
            future.release()
        if found is not None:
            write_atomic(Path(str(task.detections)), found)
        return msgspec.json.decode(answer, type=ChildResult)


def run_here(
    encoded: bytes, files: dict[str, bytes], digest: str, timeout_s: float
) -> tuple[bytes, bytes | None]:
    """On a worker: run a shard whose artifact is ``files``.

    Args:
        digest: of the sender's measuring code, which must be this machine's too.

    Returns:
        The encoded `ChildResult`, and the file of what was found if there is one.
    """
    if digest != source_digest(MEASURE_SOURCES):
        error = "a worker has another version of detbench: install this one there"
        return msgspec.json.encode(ChildResult(state="crashed", error=error)), None
    task = msgspec.json.decode(encoded, type=MeasureTask)
    with tempfile.TemporaryDirectory(prefix="detbench-shard-") as name:
        folder, found = Path(name), Path(name) / "found.npz"
        for path, data in files.items():
            write_atomic(folder / "artifact" / path, data)
        local = msgspec.structs.replace(
            task, folder=str(folder / "artifact"), detections=str(found)
        )
        result = run_child(local, folder=folder, name="shard", timeout_s=timeout_s)
        return msgspec.json.encode(result), found.read_bytes() if found.is_file() else None
