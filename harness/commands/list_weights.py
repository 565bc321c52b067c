"""``detbench list weights``: what is shipped, and what others published."""

from __future__ import annotations

from typing import Any

from harness.fetch.published import PublishedWeights, all_published
from harness.fetch.weights import is_fetched
from harness.weights import shipped_manifests


def weight_rows() -> list[dict[str, Any]]:
    """A row for each: name, model, state, size, licence, training data, figures and whose."""
    return [
        *(_shipped(manifest) for manifest in shipped_manifests()),
        *(_published(entry) for entry in all_published().values()),
    ]


def _shipped(manifest: dict[str, Any]) -> dict[str, Any]:
    score = manifest["score"]
    options = ",".join(f"{key}={value}" for key, value in manifest["model_options"].items())
    return {
        "name": "shipped",
        "model": f"{manifest['model']}:{options}" if options else manifest["model"],
        "state": "shipped",
        "size": _size(manifest["size_bytes"]),
        "licence": "MIT",
        "trained on": manifest["data"],
        "figures": f"measured by detbench: {score['metric']} {score['value']:.3f} on"
        f" {score['data']}, {score['images']} images",
    }


def _published(entry: PublishedWeights) -> dict[str, Any]:
    figures = "; ".join(f"{f.figure} on {f.data} ({f.source})" for f in entry.published)
    whose = "fetched" if is_fetched(entry) else f"detbench fetch weights {entry.name}"
    return {
        "name": entry.name,
        "model": entry.model if entry.kind == "detector" else f"backbone of {entry.model}",
        "state": whose,
        "size": _size(entry.file.size_bytes),
        "licence": entry.licence,
        "trained on": entry.trained_on,
        "figures": f"published: {figures}" if figures else "",
    }


def _size(size_bytes: int | None) -> str:
    return "size unknown" if size_bytes is None else f"{size_bytes / 1e6:.2f} MB"
