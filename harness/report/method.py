"""How the figures were made, in the reader's words. Counts come from the code that applies them."""

from __future__ import annotations

from harness import stats
from harness.report.wording import points


def method(margin: float) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(heading, sentences): each rule of measurement that a figure in the report rests on."""
    p50, p90, p99 = (stats.needed(p) for p in (50, 90, 99))
    unstable = f"{100 * stats.UNSTABLE_COV:g} %"
    return (
        (
            "Latency",
            (
                "Every cell runs in its own process, so that no runtime disturbs another, and the"
                " supervising process sleeps while it is timed.",
                "Cells to be compared take turns of some 30 ms, in shuffled rounds: what"
                " changes on the machine over time falls on all of them. The seed of the order is"
                " stored.",
                "Inputs take turns, so that no runtime sees the same one twice in a row, and some"
                " timed calls keep their outputs, which must equal those of untimed calls.",
                "A call too short for the clock is timed in batches, and the row says so.",
                "Timing stops only when both the least time and the least number of samples of the"
                " tier are reached. Tier smoke is for tests, not for comparisons.",
                f"A percentile is shown only when the samples support it at 99 % confidence: p50"
                f" from {p50} samples, p90 from {p90}, p99 from {p99}. Otherwise the cell is blank"
                " and says how many are missing.",
                "No sample is ever discarded. Outliers are counted, and a slow first sample is"
                " named.",
                f"A row whose coefficient of variation is above {unstable} is marked unstable.",
                "Loading, the first inference, warm-up and steady state are separate figures; so"
                " are pre-processing, inference, decoding with NMS, and end to end.",
                "The number of threads that the runtime really used is read back and shown where"
                " it differs from what was asked.",
            ),
        ),
        (
            "Faster and slower",
            (
                "One row is called faster than another only when a test gives"
                f" p below {stats.SIGNIFICANT_P:g} and they differ by more than the noise"
                f" floor and by more than {100 * stats.LEAST_RATIO:g} %. Otherwise they are called"
                " indistinguishable. Rows that took turns are divided turn by turn (Wilcoxon's"
                " signed-rank test); others are compared by their medians (Mann–Whitney).",
                "The noise floor is how far apart measurements of one cell by several processes"
                " came out in this run, by turns and one after the other.",
                "Intervals of a median are 95 % intervals between two order statistics; they"
                " assume no distribution.",
            ),
        ),
        (
            "Accuracy",
            (
                "Every runtime's raw outputs go through one decoder and one NMS, so that a"
                " difference in mAP comes from the runtime and the export.",
                "mAP, COCO is the mean over IoU thresholds .50 to .95; mAP@.5 uses .50 alone;"
                " VOC2007 takes 11 points of the precision-recall curve and VOC2012 its area.",
                "Each score is measured here, never quoted, and has a 95 % interval from a"
                " bootstrap over images.",
                "An export is compared with its float reference by drawing the same images for"
                " both (a paired bootstrap). Where only separate intervals exist, the wider"
                " unpaired interval is used and said so.",
                f"An export counts as good as the float reference when the whole interval of the"
                f" difference lies above −{points(margin)}.",
                "Images that chose quantization ranges are compared by content with those that are"
                " scored; an overlap marks the row.",
            ),
        ),
        (
            "Parity, size and memory",
            (
                "Before a cell is measured, its outputs are compared with the float network on"
                " real images. Beyond the limits of its format it ends as parity-failed and is not"
                " measured; the check is repeated in every child process.",
                "SQNR is the power of the float outputs over the power of the error, in decibels:"
                " higher is closer.",
                "Size is the bytes of the model files, in MB of 1,000,000 bytes. Peak memory is"
                " the highest resident set of the child, less what it was before the model was"
                " loaded.",
            ),
        ),
        (
            "Trust",
            (
                "The state of the machine is read before and after; a machine that was busy or"
                " changed its state taints the row, which is then marked and kept out of every"
                " recommendation.",
                "Each row is bound to the SHA-256 of the artifact's bytes, the weights, the"
                " calibration images, the versions, the git revision and the machine.",
                "Every planned cell ends in exactly one state and is listed exactly once.",
            ),
        ),
    )
