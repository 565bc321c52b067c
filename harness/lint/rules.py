"""Every rule once: its name, how bad a breach is, what it looks for, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.records import Finding, FindingLevel

LARGEST_CUT = 0.01
LEAST_LIMIT = 100
LEAST_IMAGES = 100
CLAIMED = 0.01
"""A change of mAP below one point is no claim that a reader would act on."""
ADDED_UP = 0.2
"""How far the stages' medians may be from the end-to-end median, as a share of it."""
FULL_SIZE = 0.9
"""A compressed file this large, as a share of the uncompressed one, was not compressed."""


class Rule(NamedTuple):
    """One rule. ``looks_for`` completes "the linter looks for …"."""

    level: FindingLevel
    looks_for: str
    remedy: str


RULES: dict[str, Rule] = {
    "calibration-overlap": Rule(
        "red",
        "images that calibrated an artifact and are scored with it, by content hash",
        "calibrate on other images: --set calibration.data=…",
    ),
    "calibration-split": Rule(
        "amber",
        "calibration on the split that is scored, though on other images of it",
        "take calibration images from the training split",
    ),
    "calibration-unlisted": Rule(
        "amber",
        "an int8 artifact that does not say which images calibrated it",
        "list their SHA-256 in the manifest's calibration, or export again with detbench",
    ),
    "preprocessing": Rule(
        "red",
        "calibration, evaluation and timing that prepare images differently (mean, std, size,"
        " channel order, resizing)",
        "use one preprocessing for all three: correct the manifest's image, or export again",
    ),
    "score-cut": Rule(
        "red",
        f"detections dropped by a score above {LARGEST_CUT:g} before mAP is computed",
        f"set decoding.score_threshold to {LARGEST_CUT:g} or less: mAP needs the whole curve",
    ),
    "detection-limit": Rule(
        "red",
        f"fewer than {LEAST_LIMIT} detections an image in COCO mAP",
        f"set decoding.max_detections to {LEAST_LIMIT}",
    ),
    "training-split": Rule(
        "red",
        "a score on images that the network was trained on",
        "score the validation or the test split",
    ),
    "split-mixed": Rule(
        "red",
        "scores on different splits of a data set side by side",
        "score all rows on one split",
    ),
    "different-images": Rule(
        "red",
        "compared rows that were scored on different images of a split, by content hash",
        "score all rows on the same images: the same --images and the same data",
    ),
    "skipped-images": Rule(
        "amber",
        "bad images that were left out of a score, as asked",
        "repair or remove them, then score all: detbench show dataset names them",
    ),
    "few-images": Rule(
        "amber",
        f"a score on fewer than {LEAST_IMAGES} images",
        "score more images: --images",
    ),
    "undecided-difference": Rule(
        "amber",
        f"a difference from the float model of more than {100 * CLAIMED:g} point of mAP that its"
        " interval does not tell from none",
        "score more images until the interval leaves out zero, or claim no difference",
    ),
    "metric-mixed": Rule(
        "red",
        "compared rows with different definitions of mAP (VOC07, VOC12, COCO, pytorch-ssd)",
        "compare one metric: score all rows again with this version",
    ),
    "no-float-parent": Rule(
        "red",
        "a compressed row whose float parent was not scored here on the same data",
        "score the float export of the same weights in the same run",
    ),
    "published-figure": Rule(
        "amber",
        "published figures among measured ones",
        "measure it here, or quote it apart from the measured rows",
    ),
    "threshold-on-test": Rule(
        "red",
        "precision, recall or F1 at a score that was chosen on the scored images",
        "choose the score on the training or the validation split",
    ),
    "perfect-precision": Rule(
        "amber",
        "a precision of exactly 100 % beside a lower recall, as comes of not counting false"
        " positives",
        "count every detection above the score, background included",
    ),
    "dirty-tree": Rule(
        "amber",
        "records of a checkout with uncommitted changes, which nobody can check out again",
        "commit, then measure again",
    ),
    "smoke": Rule(
        "red",
        "timings of tier smoke, which is a test that everything works",
        "measure with tier rapid or longer: --tier rapid",
    ),
    "few-samples": Rule(
        "amber",
        "timings with too few samples for a median",
        "measure with tier rapid or longer: --tier rapid",
    ),
    "no-warm-up": Rule(
        "amber",
        "timings without a warm-up, whose first calls are in the steady state",
        "time with detbench latency, which warms up before it counts",
    ),
    "emulated": Rule(
        "red",
        "timings on an emulated processor, which say nothing about a real one",
        "time on the device itself; accuracy may stay",
    ),
    "threads": Rule(
        "amber",
        "timings in which the runtime used another number of threads than asked",
        "compare by the threads used, or ask for a number that the runtime honours",
    ),
    "stages-differ": Rule(
        "amber",
        "pre- or post-processing timed with one row and not with the row it is compared with",
        "compare end to end, or time both rows with the same stages",
    ),
    "stages-sum": Rule(
        "amber",
        f"stages whose medians do not add up to the end-to-end median within {100 * ADDED_UP:g} %",
        "time again on a quiet machine; if it stays, the stages overlap or one is missing",
    ),
    "no-effect": Rule(
        "amber",
        "a compressed export that is no smaller than its uncompressed twin, or equal to it byte"
        " for byte",
        "check that the compression reached the file: its options and notes are in artifact.json",
    ),
    "unfit-recommendation": Rule(
        "amber",
        "a recommended row that is tainted or unstable",
        "let the machine rest and measure again before deciding",
    ),
}


def finding(rule: str, text: str, *where: str) -> Finding:
    """A breach of ``rule`` in words, at the places ``where``."""
    known = RULES[rule]
    return Finding(rule=rule, level=known.level, text=text, remedy=known.remedy, where=where)


def merged(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that say the same in one, with all their places; red ones first, then by rule."""
    together: dict[tuple[str, str], list[str]] = {}
    for one in found:
        places = together.setdefault((one.rule, one.text), [])
        places += [place for place in one.where if place not in places]
    order = list(RULES)
    keys = sorted(
        together, key=lambda key: (RULES[key[0]].level != "red", order.index(key[0]), key[1])
    )
    return tuple(finding(rule, text, *together[rule, text]) for rule, text in keys)


def rules_table() -> str:
    """All rules as a Markdown table, as `docs/linter.md` holds it."""
    rows = [
        f"| `{name}` | {rule.level} | {rule.looks_for} | {rule.remedy} |"
        for name, rule in RULES.items()
    ]
    head = ["| rule | level | looks for | remedy |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])
