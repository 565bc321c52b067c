"""Apache TVM's RPC (https://tvm.apache.org, Apache-2.0): a module runs on a board, timed from here.

The board runs ``detbench device serve`` (or TVM's own ``tvm.exec.rpc_server``); ``--target`` says
where: ``board:9090`` is a server, ``rpi4@host:9190`` a board of that key at a tracker. `run` passes
the picture and the answer over the network; `Session.time_on_device` times without it.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import model_file
from harness.boards import Address, address, connect, reason
from harness.errors import CellCrashed, Unsupported
from harness.interfaces import ANSWERS, RUNNERS, Outputs, Runner, RunOptions, Session
from harness.records import Artifact
from runners._tvm_fit import Place, check
from runners._tvm_runtime import FASTEST_CORES, import_runtime


@RUNNERS.register
class TvmRpc(Runner):
    """A TVM module on another machine."""

    name = "tvm_rpc"
    formats = frozenset({"tvm"})
    modules = ("tvm",)
    extra = "tvm-runtime"
    remote = True

    def unsupported(self, artifact_format: str, options: RunOptions) -> str | None:
        """The target must be an address."""
        if artifact_format not in self.formats:
            return f"{self.name} runs {', '.join(sorted(self.formats))}, not {artifact_format}"
        if address(options.target) is None:
            return (
                f"{self.name} runs on another machine, not on target {options.target}:"
                " give --target HOST:PORT, or KEY@HOST:PORT of a tracker"
            )
        return None

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Connect, upload, load.

        Raises:
            CellCrashed: nobody answers, or the connection is lost.
            ArtifactDamaged: the library is truncated, or none.
            Unsupported: it was built for another machine or by another TVM, or the board takes
                another number of threads.
        """
        where = address(options.target)
        if where is None:
            raise Unsupported(str(self.unsupported("tvm", options)))
        tvm = import_runtime()
        path = model_file(artifact, folder)
        return RpcSession(tvm, path, artifact, where, options.threads)


class RpcSession(Session):
    """A module loaded on a board."""

    def __init__(
        self, tvm: Any, path: Path, artifact: Artifact, where: Address, threads: int
    ) -> None:
        self._where = where
        self._remote = connect(where)
        said = self._introduction()
        place = _place(str(where), said, str(tvm.__version__))
        check(path, artifact, place)
        self.board = said or {"id": f"unknown board at {where}"}
        with self._connection():
            self._device = self._remote.cpu(0)
            self._file = f"{artifact.sha256[:16] or 'model'}.so"
            self._remote.upload(bytearray(path.read_bytes()), target=self._file)
        self._machine: Any = self._load(tvm, artifact)
        with self._connection():
            get = self._remote.get_function
            get("runtime.config_threadpool")(FASTEST_CORES, threads)
            given = int(get("runtime.NumThreads")())
        if given != threads:
            raise Unsupported(f"{where} takes {given} threads, not {threads}: ask for {given}")
        self._tensor = tvm.runtime.tensor
        self._answer = ANSWERS[artifact.output_kind]
        self.versions = {"apache-tvm": place.tvm}
        if said:
            name = said["board"] or said["cpu"] or said["architecture"]
            self.versions["board"] = f"{name}, {said['architecture']}"

    def run(self, images: NDArray[Any]) -> Outputs:
        """Send a batch, run it, fetch the answer."""
        with self._connection():
            self._machine.set_input("main", self._tensor(images, self._device))
            self._machine.invoke_stateful("main")
            outputs = self._machine.get_outputs("main")
            return self._answer(*(np.array(output.numpy()) for output in outputs))

    def time_on_device(self, images: NDArray[Any], count: int) -> tuple[float, ...]:
        """Nanoseconds of ``count`` runs by the board's own clock."""
        with self._connection():
            self._machine.set_input("main", self._tensor(images, self._device))
            timer = self._machine.time_evaluator(
                "invoke_stateful", self._device, number=1, repeat=count
            )
            return tuple(float(seconds) * 1e9 for seconds in timer("main").results)

    def close(self) -> None:
        """Let go of the module and the board."""
        with contextlib.suppress(Exception):  # it may be gone already, and so is the file then
            self._remote.remove(self._file)
        self._machine = self._remote = self._device = None
        gc.collect()  # the connection ends with the last of TVM's objects, some are in cycles

    def _introduction(self) -> dict[str, Any]:
        """What ``detbench device serve`` says of its machine; nothing from TVM's own server."""
        try:
            facts: dict[str, Any] = json.loads(self._remote.get_function("detbench.board")())
        except Exception:  # TVM's RPC raises several types for a function that is not there
            return {}
        return facts

    def _load(self, tvm: Any, artifact: Artifact) -> Any:
        """The module on the board. Raises Unsupported, or CellCrashed where the board is lost."""
        try:
            library = self._remote.load_module(self._file)
            return tvm.runtime.vm.VirtualMachine(library, self._device)
        except Exception as error:  # whatever the board's loader says
            with self._connection():  # its bytes were verified: either the board is gone, or
                self._remote.get_function("runtime.NumThreads")()
            raise Unsupported(
                f"{self._where} cannot load {artifact.id}, built for"
                f" {artifact.toolchain.get('target', 'an unknown target')} by TVM"
                f" {artifact.toolchain.get('apache-tvm', 'of an unknown version')}"
                f" ({reason(error)}): export it for that board, with the TVM version that it runs"
            ) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TVM's RPC raises several types
            raise CellCrashed(
                f"lost the connection to {self._where} ({reason(error)}):"
                " look whether its server still runs"
            ) from error


def _place(name: str, said: dict[str, Any], version: str) -> Place:
    """A board by its introduction, of which only what ``machine.json`` holds is left.

    One that does not introduce itself is taken to have the ``version`` of TVM that is here.
    """
    return Place(
        name,
        said.get("architecture"),
        lambda: said.get("cpu"),
        said.pop("cpu-flags", ()),
        str(said.pop("apache-tvm", version)),
    )
