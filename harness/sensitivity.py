"""What each layer costs: the record of a sensitivity scan, and sparsities chosen by it.

A scan prunes one layer at a time and scores the network. From its curves follows a network with
another sparsity in each layer: all layers go as far as the same drop of their own curve, and how
far that is is found by scoring networks pruned so, until the drop of the whole is the one asked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from harness.records import Options, Record

METRIC = "accuracy.voc12_map"
STEPS = 8
"""Networks that are scored on the way to a target: the drop is halved so often."""


class Scanned(Record, frozen=True, kw_only=True):
    """A layer of the scan and how many weights it has."""

    name: str
    weights: int


class Point(Record, frozen=True, kw_only=True):
    """The network with one layer pruned: its mAP, and that less the float network's, all 0..1.

    ``low`` and ``high`` are the paired bootstrap's 95 % interval of ``change``.
    """

    layer: str
    sparsity: float
    map: float
    change: float
    low: float
    high: float


class Choice(Record, frozen=True, kw_only=True):
    """A sparsity for each layer, and what the network with all of them scored on the same images.

    ``sparsity`` is that of all scanned layers together.
    """

    target_drop: float
    layers: dict[str, float]
    sparsity: float
    map: float
    change: float
    low: float
    high: float


class Scan(Record, frozen=True, kw_only=True):
    """One scan. ``data`` is ``name:split``; ``digest`` tells its images and what was asked."""

    model: str
    model_options: Options
    weights: str
    data: str
    images: int
    pattern: str
    sparsities: tuple[float, ...]
    digest: str
    git_revision: str
    metric: str = METRIC
    map: float | None = None
    layers: tuple[Scanned, ...] = ()
    points: tuple[Point, ...] = ()
    choice: Choice | None = None
    seconds: float = 0.0
    schema: int = 1

    def curve(self, layer: str) -> list[Point]:
        """The points of a layer, the least sparse first."""
        found = (point for point in self.points if point.layer == layer)
        return sorted(found, key=lambda point: point.sparsity)


def furthest(curve: Sequence[Point], drop: float) -> float:
    """The largest sparsity at which the curve has lost no more than ``drop``, between its points.

    A curve that rises again is taken at its lowest so far: that a layer scores better when it is
    pruned more is chance.
    """
    before, lost = 0.0, 0.0
    for point in curve:
        loss = max(lost, -point.change)
        if loss > drop:
            return before + (point.sparsity - before) * (drop - lost) / (loss - lost)
        before, lost = point.sparsity, loss
    return before


def choose(scan: Scan, target: float, score: Callable[[Mapping[str, float]], Point]) -> Choice:
    """The sparsest network that loses at most ``target``, all layers at the same drop of their own.

    Args:
        score: the network with these sparsities; the point's layer and sparsity mean nothing.
    """
    weights = {layer.name: layer.weights for layer in scan.layers}
    low, high = -1.0, 1.0
    best = dict.fromkeys(weights, 0.0)
    found = score(best)
    for _ in range(STEPS):
        middle = (low + high) / 2
        layers = _sparsities(scan, middle, target)
        point = score(layers)
        if -point.change <= target:
            low, best, found = middle, layers, point
        else:
            high = middle
    return Choice(
        target_drop=target,
        layers=best,
        sparsity=sum(weights[name] * s for name, s in best.items()) / sum(weights.values()),
        map=found.map,
        change=found.change,
        low=found.low,
        high=found.high,
    )


def _sparsities(scan: Scan, part: float, target: float) -> dict[str, float]:
    """From nothing (``part`` -1) over all that costs no layer anything (0) to the target."""
    scale = min(1.0, 1 + part)
    drop = max(0.0, part) * target
    return {
        layer.name: round(scale * furthest(scan.curve(layer.name), drop), 4)
        for layer in scan.layers
    }


def table(scan: Scan) -> str:
    """The curves as CSV: a row for each layer and sparsity."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["layer", "weights", "sparsity", "map", "change", "low", "high"])
    for layer in scan.layers:
        for p in scan.curve(layer.name):
            numbers = (p.sparsity, p.map, p.change, p.low, p.high)
            writer.writerow([layer.name, layer.weights, *(f"{n:.6g}" for n in numbers)])
    return stream.getvalue()
