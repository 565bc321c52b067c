"""What an export is called where options tell several of one exporter apart."""

from __future__ import annotations

from collections.abc import Iterable

from harness.records import Cell


def export_name(cell: Cell, telling: set[str]) -> str:
    """The exporter with those of its options that tell exports apart."""
    given = ",".join(f"{k}={v}" for k, v in sorted(cell.export_options.items()) if k in telling)
    return f"{cell.exporter}[{given}]" if given else cell.exporter


def telling_options(cells: Iterable[Cell]) -> dict[str, set[str]]:
    """Options that have more than one value, by exporter."""
    seen: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        options = seen.setdefault(cell.exporter, {})
        for key, value in cell.export_options.items():
            if key == "batch":  # said with the runner, and no other export for accuracy
                continue
            options.setdefault(key, set()).add(repr(value))
    return {
        exporter: {key for key, values in options.items() if len(values) > 1}
        for exporter, options in seen.items()
    }
