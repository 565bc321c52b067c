"""Dense or sparse, layer by layer: the forms that a layer can take, timed on this machine.

All candidates are compiled together, without threads, and run in turns. The least CPU time of each
counts, which other work on the machine disturbs least. What was timed once is remembered in the
cache, by the kernel's code, the target, the layer and its pattern of zeros. For a target that is
not this machine, density decides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_build, _tvm_planes_point
from exporters._tvm_after import Add, Affine
from exporters._tvm_planes import split
from exporters._tvm_planes_lower import Layer
from exporters._tvm_planes_point import Form, Packed, Point
from exporters._tvm_target import CpuTarget
from harness.cache import cache_dir, sha256_text, write_atomic
from harness.extras import require
from harness.provenance import source_digest
from harness.records import LayerChoice

ALWAYS_DENSE = 0.7
"""Density above which no sparse kernel was ever the faster one."""

WORTHWHILE = {1: 0.4, 2: 0.5, 4: 0.6}
"""Density below which sparse weights win, by outputs that share a list; for targets elsewhere."""

PADDED = 1.05
"""Stored values over non-zero ones that a blocked list may have."""

DENSE_TILE = {16: (6, 2), 32: (8, 3)}
"""(rows, vectors) by vector registers."""

SPARSE_TILES: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (16, 1): ((12, 0), (6, 0), (6, 128)),
    (16, 2): ((5, 0),),
    (16, 4): ((3, 0), (3, 256)),
    (32, 1): ((16, 0), (8, 0), (8, 128)),
    (32, 2): ((10, 0),),
    (32, 4): ((6, 0), (6, 256)),
}
"""(vectors, panel) by vector registers and outputs that share a list."""

ROUNDS = 7
LEAST_NS = 200_000
"""Of a timed sample; shorter kernels are called several times."""


class Choice(NamedTuple):
    """The form of a layer, and what the manifest says about it."""

    form: Form
    record: LayerChoice


def choose(layers: Sequence[Layer], target: CpuTarget) -> dict[int, Choice]:
    """The form of each layer by its number."""
    forms = {layer.number: candidates(layer, target.registers) for layer in layers}
    times: dict[str, float] = {}
    if target.here:
        times = measure(layers, forms, target)
    return {layer.number: _choice(layer, forms[layer.number], times, target) for layer in layers}


def candidates(layer: Layer, registers: int) -> tuple[Form, ...]:
    """The dense form, then the sparse ones that may be faster."""
    vectors = layer.point.grid.vectors
    rows, wide = DENSE_TILE[registers]
    found = [Form(sparse=False, rows=rows, vectors=split(vectors, wide))]
    shared = shared_rows(layer.weight)
    if density(layer.weight) <= ALWAYS_DENSE:
        for wide, panel in SPARSE_TILES[registers, shared]:
            form = Form(sparse=True, rows=shared, vectors=split(vectors, wide), panel=panel)
            apart = vectors % form.vectors == 0  # the tiles of panels may not overlap
            if form not in found and (not panel or (apart and panel < layer.point.inputs)):
                found.append(form)
    return tuple(found)


def density(weight: NDArray[Any]) -> float:
    """Part of the weights that is not zero."""
    return float(np.count_nonzero(weight) / weight.size)


def shared_rows(weight: NDArray[Any]) -> int:
    """How many neighbouring outputs have their zeros at the same inputs: 4, 2 or 1."""
    for rows in (4, 2):
        starts = np.arange(0, len(weight), rows)
        used = np.add.reduceat(weight != 0, starts, axis=0) > 0
        if len(weight) >= rows and used.sum() * rows <= PADDED * np.count_nonzero(weight):
            return rows
    return 1


def _choice(
    layer: Layer, forms: tuple[Form, ...], times: dict[str, float], target: CpuTarget
) -> Choice:
    point, part = layer.point, density(layer.weight)
    dense, sparse = forms[0], forms[1:]
    name = f"{point.inputs}→{point.outputs} at {point.grid.height}×{point.grid.width}"
    micro: dict[Form, float] = {}
    if not sparse:
        best, reason = dense, f"{1 - part:.0%} of the weights are zero, too few to gain"
    elif times:
        micro = {form: times[_key(layer, form, target)] * 1e6 for form in forms}
        best, reason = min(forms, key=micro.__getitem__), "measured"
    else:
        worth = part <= WORTHWHILE[sparse[0].rows]
        best = sparse[0] if worth else dense
        reason = f"by density: {target.text} is not the CPU of this machine"
    fastest = min((micro[form] for form in sparse), default=None) if micro else None
    pixels = point.grid.height * point.grid.width
    stored = sum(array.nbytes for array in _packed(layer, best).arrays())
    record = LayerChoice(
        layer=name,
        sparsity=round(1 - part, 4),
        dense_us=round(micro[dense], 1) if micro else None,
        sparse_us=None if fastest is None else round(fastest, 1),
        chosen=words(best),
        reason=reason,
        chosen_us=round(micro[best], 1) if micro else None,
        macs=int(np.count_nonzero(layer.weight)) * pixels,
        moved_bytes=stored + 4 * (point.inputs + point.outputs) * pixels,
    )
    return Choice(best, record)


def _packed(layer: Layer, form: Form) -> Packed:
    return _tvm_planes_point.pack(layer.weight, layer.point.grid.size, form)


def words(form: Form) -> str:
    """A form for people: ``sparse 4x1, tile 4x3 vectors``."""
    kind = f"sparse {form.rows}x1" if form.sparse else "dense"
    panel = f", panels of {form.panel}" if form.panel else ""
    return f"{kind}, {form.rows}x{form.vectors} vectors{panel}"


def _key(layer: Layer, form: Form, target: CpuTarget) -> str:
    """What a time depends on. Residuals and scales are left out: both kinds of kernel pay them."""
    point = _bare(layer.point)
    zeros = np.packbits(layer.weight != 0).tobytes().hex() if form.sparse else ""
    code = source_digest(("exporters/_tvm_planes_point.py", "exporters/_tvm_tir.py"))
    return sha256_text([target.text, repr(point), repr(form), zeros, code])


def _bare(point: Point) -> Point:
    after = tuple(step for step in point.after if not isinstance(step, Add | Affine))
    return Point(
        grid=point.grid,
        inputs=point.inputs,
        outputs=point.outputs,
        zeroed=point.zeroed,
        after=after,
    )


def measure(
    layers: Sequence[Layer], forms: dict[int, tuple[Form, ...]], target: CpuTarget
) -> dict[str, float]:
    """Seconds by `_key` of all forms of the layers that have a choice."""
    path = cache_dir("tvm-kernels") / f"{sha256_text([target.text])[:16]}.json"
    try:
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    wanted = {
        _key(layer, form, target): (layer, form)
        for layer in layers
        for form in forms[layer.number]
        if len(forms[layer.number]) > 1
    }
    missing = {key: pair for key, pair in wanted.items() if key not in known}
    if missing:
        known |= dict(zip(missing, _time(missing.values(), target), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(known, indent=0).encode())
    return {key: known[key] for key in wanted}


def _time(pairs: Iterable[tuple[Layer, Form]], target: CpuTarget) -> list[float]:
    """The least time of each of some kernels, run in turns."""
    tvm = require("tvm", extra="tvm")
    functions: dict[str, Any] = {}
    calls: list[tuple[str, list[Any]]] = []
    written: dict[Any, str] = {}
    for layer, form in pairs:
        point = _bare(layer.point)
        packed = _packed(layer, form)
        kind = (point, form, packed.sizes)
        if kind not in written:
            written[kind] = f"candidate{len(written)}"
            functions[written[kind]] = _tvm_planes_point.kernel(
                written[kind], point, form, packed.sizes, threads=False
            )
        calls.append((written[kind], _arguments(point, packed)))
    built = _tvm_build.compile_module(tvm.IRModule(functions), target)
    least = [float("inf")] * len(calls)
    for number in range(ROUNDS):
        for index, (name, arguments) in enumerate(calls):
            function = built[name]
            tensors = [tvm.runtime.tensor(array) for array in arguments]
            function(*tensors)
            repeat = 1 if number == 0 else max(1, int(LEAST_NS / (least[index] * 1e9)))
            start = time.thread_time_ns()
            for _ in range(repeat):
                function(*tensors)
            least[index] = min(least[index], (time.thread_time_ns() - start) / repeat / 1e9)
    return least


def _arguments(point: Point, packed: Packed) -> list[NDArray[Any]]:
    """Random pixels and what else a kernel without residuals takes, with room for the result."""
    grid = point.grid
    shape = (point.inputs, grid.height, grid.width)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = [grid.fill(image), *packed.arrays(), np.zeros(point.outputs, np.float32)]
    if point.zeroed:
        found.append(grid.inside())
    return [*found, np.zeros(point.outputs * grid.size, np.float32)]
