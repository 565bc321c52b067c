"""Which export should I ship? The answer in words, no stronger than the statistics allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.report import scores
from harness.report.figures import listing, percent
from harness.report.join import Row
from harness.report.timings import Pace, Timings, compare, ratio
from harness.report.wording import (
    MENTIONED,
    Sentence,
    Tile,
    loss,
    most_accurate,
    name,
    names,
    once,
    points,
    points_lost,
    smallest,
    takes,
    tiles,
)

MARGIN = 0.01
"""One point of mAP, the loss that a reader accepts for speed unless told otherwise."""
LEAST_MARGINS = 5
"""A reference below that many margins is no measure of a loss."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The answer for one model on one machine and one data set. ``choice`` is None without one."""

    machine: str
    model: str
    dataset: str
    headline: str
    choice: Row | None
    tiles: tuple[Tile, ...]
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges groups of rows. ``floors`` and ``tiers`` are each run's, by index."""

    timings: Timings
    metric: str
    margin: float = MARGIN
    floors: Mapping[int, float | None] = field(default_factory=dict)
    tiers: Mapping[int, str] = field(default_factory=dict)

    def judge(self, rows: Sequence[Row]) -> Judgement:
        """The verdict on the rows of one machine, model and data set (at least one)."""
        reference = scores.reference_of(rows, self.metric)
        choice, speed = self._speed(rows, reference)
        return Judgement(
            machine=rows[0].machine,
            model=rows[0].model,
            dataset=rows[0].dataset,
            headline=name(choice) if choice else "No recommendation",
            choice=choice,
            tiles=tiles(choice, reference, self.metric, self.timings) if choice else (),
            sentences=(
                *speed,
                most_accurate(rows, reference, self.metric),
                *smallest(rows, reference, choice, self.metric),
            ),
        )

    def _speed(
        self, rows: Sequence[Row], reference: Row | None
    ) -> tuple[Row | None, list[Sentence]]:
        """The row to ship, if one qualifies, and what there is to say about speed."""
        unfit = self._unfit(rows[0].run, reference)
        if unfit or reference is None:
            return None, [Sentence(lead="Speed", text=unfit)]
        paces = {row.key: pace for row in rows if row.accuracy and (pace := self.timings.pace(row))}
        ordered = sorted((r for r in rows if r.key in paces), key=lambda r: paces[r.key].p50)
        timed = [row for row in ordered if not row.tainted]
        fitting = [row for row in timed if self._fits(row, reference)]
        if not fitting:
            tainted = [row for row in ordered if row.tainted and self._fits(row, reference)]
            reason = self._nothing_fits(tainted, paces)
            return None, [reason, *self._passed_over(timed, None, reference)]
        choice, finding = self._fastest(fitting, paces)
        sentences = [finding, *self._gain(choice, fitting, reference, paces)]
        single = next((row for row in fitting if row.threads == 1), None)
        if choice.threads != 1 and single is not None:
            text = f"{single.pair}, {takes(paces[single.key])}."
            sentences.append(Sentence(lead="Fastest on one thread", text=text))
        faster = timed[: timed.index(choice)]
        return choice, [*sentences, *self._passed_over(faster, choice, reference)]

    def _unfit(self, run: int, reference: Row | None) -> str:
        """Why nothing can be recommended whatever was timed, if so."""
        if self.tiers.get(run) == "smoke":
            return "Tier smoke times too briefly to compare: measure with tier rapid or longer."
        found = scores.score(reference.accuracy, self.metric) if reference else None
        if found is None:
            return "No float export of this model was scored, so no loss of accuracy can be judged."
        if found.value < LEAST_MARGINS * self.margin:
            return (
                f"The float reference scores {percent(found.value)} %, too little for a loss of"
                f" {points(self.margin)} to mean anything: train the model or score other data."
            )
        return ""

    def _nothing_fits(self, tainted: Sequence[Row], paces: Mapping[str, Pace]) -> Sentence:
        """Why no row qualifies; where taint is the cause, what the rows say all the same."""
        text = (
            "No row has both a licensed median latency and a score that is proven to lie"
            f" within {points(self.margin)} of the float reference."
        )
        if tainted:
            text = (
                "Every row that would qualify is tainted: let the machine rest and measure again."
                f" By the median alone {_timed(tainted[0], paces)}, is the fastest of them."
            )
        return Sentence(lead="Speed", text=text)

    def _fastest(self, fitting: Sequence[Row], paces: Mapping[str, Pace]) -> tuple[Row, Sentence]:
        """The row to choose: of those that no test tells from the fastest, the smallest."""
        first = fitting[0]
        outcomes = {row.key: self._outcome(first, row) for row in fitting[1:]}
        ties = [row for row in fitting[1:] if outcomes[row.key] == "indistinguishable"]
        unknown = [row for row in fitting[1:] if outcomes[row.key] == "cannot tell"]
        chosen = min(
            [first, *ties],
            key=lambda row: (row.size_bytes or float("inf"), row.threads, paces[row.key].p50),
        )
        others = [row for row in [first, *ties] if row is not chosen]
        text = (
            f"{takes(paces[chosen.key])}, the fastest within {points(self.margin)} of mAP of the"
            " float reference"
        )
        if others:
            text += f"; indistinguishable from {names(others)}, and the smallest of them"
        if unknown and self.floors.get(first.run) is None:
            text += (
                "; by the median alone, for the run measured no noise floor and so proves no"
                " difference in speed"
            )
        elif unknown:
            text += f"; the samples allow no test against {names(unknown)}"
        text += "; no other row qualifies" if len(fitting) == 1 else ""
        return chosen, Sentence(lead="Fastest", text=f"{text}.")

    def _gain(
        self, choice: Row, fitting: Sequence[Row], reference: Row, paces: Mapping[str, Pace]
    ) -> list[Sentence]:
        """How much faster than float, and at which loss."""
        floats = [row for row in fitting if row.artifact and row.artifact.precision == "float32"]
        own = [row for row in fitting if scores.same_accuracy_cell(row, reference)]
        said = []
        if floats and choice not in floats:
            than = self._times(floats[0], choice, paces)
            said.append(f"{than} the fastest float row, {_timed(floats[0], paces)}")
        if own and choice not in own and own[0] not in floats[:1]:
            than = self._times(own[0], choice, paces)
            said.append(f"{than} the float reference, {_timed(own[0], paces)}")
        found = [Sentence(lead="Gain", text=f"{'; '.join(said)}.")] if said else []
        cost = loss(choice, reference, self.metric)
        return [*found, Sentence(lead="Cost", text=cost)] if cost else found

    def _times(self, slow: Row, quick: Row, paces: Mapping[str, Pace]) -> str:
        """``2.34× faster than``, as far as a test supports it."""
        times = f"{ratio(paces[slow.key], paces[quick.key]):.2f}×"
        return {
            "faster": f"{times} faster than",
            "slower": "slower than",
            "indistinguishable": "indistinguishable in speed from",
        }.get(self._outcome(slow, quick), f"{times} faster by the median, not proven, than")

    def _passed_over(
        self, rows: Sequence[Row], choice: Row | None, reference: Row
    ) -> list[Sentence]:
        """Rows with a better median than the chosen one that do not qualify, and why."""
        standings = {row.key: self._standing(row, reference) for row in rows}
        unclear = [row for row in rows if standings[row.key] in ("unclear", "unknown")]
        beyond = [row for row in rows if standings[row.key] == "beyond"]
        limit = points(self.margin)
        found = []
        if unclear:
            text = (
                f"{names(unclear)}: a loss of more than {limit} is not excluded. Score more images"
                " to decide."
            )
            found.append(Sentence(lead="Perhaps faster" if choice else "Undecided", text=text))
        if beyond:
            losses = [
                f"{row.pair} ({points_lost(row, reference, self.metric)})" for row in once(beyond)
            ]
            text = f"{listing(losses[:MENTIONED])}: proven to lose more than {limit}."
            lead = "Faster, less accurate" if choice else "Less accurate"
            found.append(Sentence(lead=lead, text=text))
        return found

    def _fits(self, row: Row, reference: Row) -> bool:
        return self._standing(row, reference) in ("reference", "within")

    def _standing(self, row: Row, reference: Row) -> scores.Standing:
        return scores.standing(row, reference, self.metric, self.margin)

    def _outcome(self, a: Row, b: Row) -> str:
        """How the speed of ``b`` compares with that of ``a``."""
        verdict = compare(a, b, self.floors.get(a.run))
        return verdict.outcome if verdict else "cannot tell"


def _timed(row: Row, paces: Mapping[str, Pace]) -> str:
    return f"{name(row)}, {takes(paces[row.key])}"
