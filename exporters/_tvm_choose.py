"""Dense or sparse, layer by layer: the forms that a layer can take, timed on this machine.

How they are timed is in `_tvm_time`; a time depends on the kernel's code, the target, the layer and
its pattern of zeros. For a target that is not this machine, density decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_planes_point
from exporters._tvm_after import Add, Affine
from exporters._tvm_planes import split
from exporters._tvm_planes_lower import Layer
from exporters._tvm_planes_point import Form, Packed, Point
from exporters._tvm_target import CpuTarget
from exporters._tvm_time import Candidate, Times, code_digest
from exporters._tvm_tune import Budget, Decision, Workload, rounded, search
from harness.cache import sha256_text
from harness.layer_records import LayerChoice

ALWAYS_DENSE = 0.7
"""Density above which no sparse kernel was ever the faster one."""

WORTHWHILE = {1: 0.4, 2: 0.5, 4: 0.6}
"""Density below which sparse weights win, by outputs that share a list; for targets elsewhere."""

PADDED = 1.05
"""Stored values over non-zero ones that a blocked list may have."""

DENSE_TILE = {16: (6, 2), 32: (8, 3)}
"""(rows, vectors) by vector registers."""

SPARSE_TILES: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (16, 1): ((14, 0), (12, 0), (8, 0), (7, 128), (14, 128)),
    (16, 2): ((5, 0),),
    (16, 4): ((3, 0), (3, 256)),
    (32, 1): ((16, 0), (8, 0), (8, 128)),
    (32, 2): ((10, 0),),
    (32, 4): ((6, 0), (6, 256)),
}
"""(vectors, panel) by vector registers and outputs that share a list."""


TUNED_TILES = {
    16: {1: (12, 8, 6, 4), 2: (6, 5, 4, 3), 4: (3, 2)},
    32: {1: (16, 12, 8, 6), 2: (10, 8, 6), 4: (6, 5, 4)},
}
"""Vectors that tuning tries, by vector registers and outputs that share a list."""

TUNED_PANELS = (0, 64, 96, 128, 192, 256)
TUNED_DENSE = {16: ((4, 3), (3, 4), (2, 6), (12, 1)), 32: ((6, 4), (4, 6), (12, 2), (7, 4))}
"""What tuning tries beside the usual tiles."""


class Choice(NamedTuple):
    """The form of a layer, and what the manifest says about it."""

    form: Form
    record: LayerChoice


def choose(
    layers: Sequence[Layer], times: Times, budget: Budget | None = None
) -> dict[int, Choice]:
    """The form of each layer by its number; with a budget more forms are tried."""
    target = times.target
    usual = {layer.number: candidates(layer, target.registers) for layer in layers}
    forms: dict[int, tuple[Form, ...]] = {
        number: found if times.possible and (budget is not None or len(found) > 1) else ()
        for number, found in usual.items()
    }
    times.measure(
        candidate(layer, form, target) for layer in layers for form in forms[layer.number]
    )
    if budget is not None:
        forms = {layer.number: more_candidates(layer, target.registers) for layer in layers}
    workloads = {
        layer.number: _workload(layer, forms[layer.number], len(usual[layer.number]), target)
        for layer in layers
    }
    if budget is not None:
        search(list(workloads.values()), times, budget)
    return {
        layer.number: _choice(
            layer,
            usual[layer.number],
            _micro(layer, forms[layer.number], times, target),
            target,
            workloads[layer.number].decided(times) if budget is not None else None,
        )
        for layer in layers
    }


def _workload(layer: Layer, forms: Sequence[Form], usual: int, target: CpuTarget) -> Workload:
    work = layer.point.macs * max(density(layer.weight), 0.1)
    candidates = tuple(candidate(layer, form, target) for form in forms)
    return Workload(place(layer.point), work, candidates, usual=usual)


def _micro(
    layer: Layer, forms: Sequence[Form], times: Times, target: CpuTarget
) -> dict[Form, float]:
    """Microseconds of the forms that were timed."""
    found = {form: times.known(candidate(layer, form, target)) for form in forms}
    return {form: seconds * 1e6 for form, seconds in found.items() if seconds is not None}


def candidates(layer: Layer, registers: int) -> tuple[Form, ...]:
    """The dense form, then the sparse ones that may be faster."""
    rows, wide = DENSE_TILE[registers]
    found = [Form(sparse=False, rows=rows, vectors=split(layer.point.grid.vectors, wide))]
    shared = shared_rows(layer.weight)
    if density(layer.weight) <= ALWAYS_DENSE:
        found += _sparse_forms(layer.point, shared, SPARSE_TILES[registers, shared])
    return tuple(dict.fromkeys(found))


def more_candidates(layer: Layer, registers: int) -> tuple[Form, ...]:
    """Those, and what else tuning tries."""
    point, shared = layer.point, shared_rows(layer.weight)
    found = [
        Form(sparse=False, rows=rows, vectors=split(point.grid.vectors, wide))
        for rows, wide in TUNED_DENSE[registers]
    ]
    if density(layer.weight) <= ALWAYS_DENSE:
        tiles = [(v, panel) for v in TUNED_TILES[registers][shared] for panel in TUNED_PANELS]
        found += _sparse_forms(point, shared, tiles)
    return tuple(dict.fromkeys((*candidates(layer, registers), *found)))


def _sparse_forms(point: Point, shared: int, tiles: Iterable[tuple[int, int]]) -> list[Form]:
    vectors = point.grid.vectors
    forms = [
        Form(sparse=True, rows=shared, vectors=split(vectors, wide), panel=panel)
        for wide, panel in tiles
    ]
    # the tiles of panels may not overlap
    return [
        form
        for form in forms
        if not form.panel or (vectors % form.vectors == 0 and form.panel < point.inputs)
    ]


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
    layer: Layer,
    usual: tuple[Form, ...],
    micro: dict[Form, float],
    target: CpuTarget,
    decided: Decision | None,
) -> Choice:
    """The winner of tuning, the fastest form in ``micro``, or of the ``usual`` ones by density."""
    point, part = layer.point, density(layer.weight)
    dense, *sparse = usual
    if decided is not None:
        finalists = zip(decided.finalists, decided.all_seconds, strict=True)
        micro = micro | {_form(one): seconds * 1e6 for one, seconds in finalists}
        best, reason = _form(decided.winner), "measured"
    elif micro:
        best, reason = min(micro, key=micro.__getitem__), "measured"
    elif not sparse:
        best, reason = dense, f"{1 - part:.0%} of the weights are zero, too few to gain"
    else:
        worth = part <= WORTHWHILE[sparse[0].rows]
        best = sparse[0] if worth else dense
        reason = f"by density: {target.text} is not the CPU of this machine"
    return Choice(
        best,
        LayerChoice(
            layer=place(point),
            sparsity=round(1 - part, 4),
            dense_us=_least(micro, sparse=False),
            sparse_us=_least(micro, sparse=True),
            chosen=words(best),
            reason=reason,
            chosen_us=_rounded(micro.get(best)),
            untuned_us=_rounded(decided.usual * 1e6) if decided else None,
            macs=int(np.count_nonzero(layer.weight)) * point.grid.height * point.grid.width,
            moved_bytes=_moved_bytes(layer, best),
        ),
    )


def _form(finalist: Candidate) -> Form:
    form: Form = finalist.kind[1]
    return form


def _least(micro: dict[Form, float], *, sparse: bool) -> float | None:
    return _rounded(min((us for form, us in micro.items() if form.sparse is sparse), default=None))


def _rounded(micro: float | None) -> float | None:
    return None if micro is None else rounded(micro)


def _moved_bytes(layer: Layer, form: Form) -> int:
    """Weights as they are stored, and each activation once."""
    point = layer.point
    stored = sum(array.nbytes for array in _packed(layer, form).arrays())
    return stored + 4 * (point.inputs + point.outputs) * point.grid.height * point.grid.width


def place(point: Point) -> str:
    """A layer for people: ``96→576 at 19×19``."""
    return f"{point.inputs}→{point.outputs} at {point.grid.height}×{point.grid.width}"


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
    code = code_digest("_tvm_planes_point")
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


def candidate(layer: Layer, form: Form, target: CpuTarget) -> Candidate:
    """A form of a layer, to be timed without residuals: both kinds of kernel pay them."""
    point = _bare(layer.point)
    packed = _packed(layer, form)

    def write(name: str) -> Any:
        return _tvm_planes_point.kernel(name, point, form, packed.sizes, threads=False)

    return Candidate(
        _key(layer, form, target),
        (point, form, packed.sizes),
        write,
        lambda: _arguments(point, packed),
    )


def _arguments(point: Point, packed: Packed) -> list[NDArray[Any]]:
    """Random pixels and what else a kernel without residuals takes, with room for the result."""
    grid = point.grid
    shape = (point.inputs, grid.height, grid.width)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = [grid.fill(image), *packed.arrays(), np.zeros(point.outputs, np.float32)]
    if point.zeroed:
        found.append(grid.inside())
    return [*found, np.zeros(point.outputs * grid.size, np.float32)]
