"""The page of one training: what was learned on what, and the curves of loss and mAP.

It is made of the files in the training's folder: ``weights.json``, the manifest, and ``log.csv``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ResultsError
from harness.report.chart_lines import Axes, Line, lines
from harness.report.chart_style import drawing, looks
from harness.report.chart_svg import Chart
from harness.report.render import plain

NAME = "report.html"
MOST_POINTS = 120
Point = tuple[float, float]


def write(folder: Path) -> Path:
    """Write ``report.html`` into a training's folder.

    Raises:
        ResultsError: the folder holds no finished training.
        MissingExtra: what draws is not installed.
    """
    try:
        manifest = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
            log = [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder} holds no finished training ({error}): train first") from None
    with drawing():
        charts = [_losses(log, manifest), *_scores(manifest)]
    page = plain(
        "training.html.j2",
        title=f"Training of {manifest['model']}",
        lede=_lede(manifest),
        facts=_facts(manifest),
        charts=charts,
    )
    path = folder / NAME
    path.write_text(page, encoding="utf-8")
    return path


def smoothed(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """At most ``most`` points, each the mean of as many neighbours."""
    size = -(-len(points) // most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((group[-1][0], sum(value for _, value in group) / len(group)) for group in groups)


def _losses(log: Sequence[dict[str, float]], manifest: dict[str, Any]) -> Chart:
    series = ("total", "classes", "boxes")
    names = dict(zip(series, ("loss", "classes", "boxes"), strict=True))
    drawn = [
        Line(
            label=f"training, {key}" if key == "total" else key,
            series=key,
            points=smoothed([(row["images"], row[names[key]]) for row in log], MOST_POINTS),
        )
        for key in series
    ]
    held_out = tuple((v["images"], v["loss"]) for v in manifest["validations"])
    if held_out:
        drawn.append(Line(label="held out, total", series="total", points=held_out, hollow=True))
    return lines(
        drawn,
        looks(series),
        Axes(x="images shown", y="loss per matched prior"),
        key="loss",
        title="Loss",
        caption="The training's is on augmented images at the size of each stage, mean over"
        " neighbouring steps; the held-out one on whole images at the model's own size.",
    )


def _scores(manifest: dict[str, Any]) -> list[Chart]:
    points = tuple((v["images"], 100 * v["map"]) for v in manifest["validations"])
    if not points:
        return []
    best = manifest["best"]
    return [
        lines(
            [Line(label="held out", series="map", points=points)],
            looks(["map"]),
            Axes(x="images shown", y="VOC12 mAP@.5, %"),
            key="map",
            title="Accuracy",
            caption=f"The weights are those after {best['images']:,} images,"
            f" {100 * best['map']:.1f} %.",
        )
    ]


def _lede(manifest: dict[str, Any]) -> str:
    score = manifest["score"]
    if score is None or score["value"] is None:
        return "The weights were not scored."
    return (
        f"VOC12 mAP@.5 {100 * score['value']:.1f} % on the {score['images']:,} held-out images of"
        f" {score['data']}."
    )


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to repeat or to trust it."""
    score = manifest["score"] or {"per_class": {}}
    classes = [
        f"{name} {100 * value:.1f} %"
        for name, value in score["per_class"].items()
        if value is not None
    ]
    return [
        ("Classes", ", ".join(classes or manifest["labels"][1:])),
        ("Trained on", f"{manifest['data_images']:,} images of {manifest['data']}"),
        ("Shown", f"{manifest['images_seen']:,} images in {manifest['seconds']:,.0f} s"),
        ("Start", "; ".join(manifest["start"])),
        ("Seed", str(manifest["seed"])),
        ("Revision", manifest["revision"] + (" with changes" if manifest["dirty"] else "")),
        ("Commands", "\n".join(manifest["commands"])),
        ("Weights", f"SHA-256 {manifest['sha256']}, {manifest['size_bytes'] / 1e6:.2f} MB"),
    ]
