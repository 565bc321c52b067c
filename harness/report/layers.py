"""Layers for which an exporter chose between kernels: what each would take, and what it took."""

from __future__ import annotations

from harness.layer_records import LayerChoice
from harness.records import Artifact
from harness.report.figures import significant
from harness.report.join import Entry, Joined
from harness.report.tables import Column, Line, Table, Value, blank, text

NOT_TIMED = "not timed"
NOT_TUNED = "not tuned"


def layers_table(joined: Joined) -> Table:
    """One line a layer of each artifact that lists some, the largest first."""
    found: dict[str, tuple[Entry, Artifact]] = {}
    for entry in joined.entries:
        if entry.artifact is not None and entry.artifact.layers:
            found.setdefault(entry.artifact.sha256, (entry, entry.artifact))
    table = Table(
        key="layers",
        caption=(
            "Kernels that an export chose between, layer by layer, timed alone at one thread on the"
            " machine that exported. FLOPs and bytes are the least that the chosen kernel needs:"
            " of weights that are not zero, their places, and each activation once. Few FLOPs a"
            " byte mean that memory is the limit, not arithmetic."
        ),
        columns=(
            Column(key="model", label="Model", wide=True),
            Column(key="export", label="Export"),
            Column(key="layer", label="Layer"),
            Column(key="zeros", label="Zeros", unit="%", numeric=True),
            Column(key="dense", label="Dense", unit="µs", numeric=True),
            Column(key="sparse", label="Sparse", unit="µs", numeric=True),
            Column(key="gain", label="Dense / chosen", unit="×", numeric=True),
            Column(key="untuned", label="Untuned", unit="µs", numeric=True),
            Column(key="tuned", label="Tuned", unit="µs", numeric=True),
            Column(key="tuning", label="Untuned / tuned", unit="×", numeric=True),
            Column(key="chosen", label="Chosen", wide=True),
            Column(key="mflop", label="Work", unit="MFLOP", numeric=True),
            Column(key="kbytes", label="Moved", unit="kB", numeric=True),
            Column(key="intensity", label="Intensity", unit="FLOP/B", numeric=True),
            Column(key="rate", label="Reached", unit="GFLOP/s", numeric=True),
        ),
        lines=tuple(
            _line(entry, layer)
            for entry, artifact in found.values()
            for layer in sorted(artifact.layers, key=lambda one: -(one.dense_us or 0.0))
        ),
        empty="No export chose between kernels.",
    )
    chosen = [layer for _, artifact in found.values() for layer in artifact.layers]
    unused: tuple[str, ...] = ()
    if not any(layer.untuned_us for layer in chosen):
        unused += ("untuned", "tuned", "tuning")
    if not any(layer.sparse_us for layer in chosen):
        # then a tuned layer's dense time is its tuned one
        tuned_only = all(layer.untuned_us for layer in chosen)
        unused += ("dense", "sparse", "gain") if tuned_only else ("sparse",)
    if not any(layer.moved_bytes for layer in chosen):
        unused += ("kbytes", "intensity")
    return table.without([*joined.constant, *unused])


def _line(entry: Entry, layer: LayerChoice) -> Line:
    older = layer.dense_us if layer.chosen.startswith("dense") else layer.sparse_us
    taken = layer.chosen_us or older
    flops, moved = 2 * layer.macs, layer.moved_bytes
    return Line(
        values=(
            text(entry.model),
            text(entry.export),
            text(layer.layer),
            Value(text=f"{100 * layer.sparsity:.1f}", sort=100 * layer.sparsity),
            _figure(layer.dense_us),
            _figure(layer.sparse_us),
            _figure(layer.dense_us / taken if layer.dense_us and taken else None),
            _figure(layer.untuned_us, NOT_TUNED),
            _figure(layer.chosen_us if layer.untuned_us else None, NOT_TUNED),
            _figure(layer.untuned_us / taken if layer.untuned_us and taken else None, NOT_TUNED),
            text(layer.chosen, note="" if layer.reason == "measured" else layer.reason),
            _figure(flops / 1e6 if flops else None, "not said"),
            _figure(moved / 1e3 if moved else None, "not said"),
            _figure(flops / moved if moved else None, "not said"),
            _figure(flops / taken / 1e3 if flops and taken else None),
        ),
    )


def _figure(value: float | None, reason: str = NOT_TIMED) -> Value:
    return blank(reason) if value is None else Value(text=significant(value), sort=value)
