"""Which export should I ship? The answer in words, no stronger than the statistics allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.report import scores
from harness.report.figures import count, duration, listing, megabytes, percent, signed_points
from harness.report.join import Row
from harness.report.timings import END_TO_END, Pace, Timings, compare, ratio

MARGIN = 0.01
"""A ten-point drop is another product, a tenth of a point is noise: one point of mAP is the default
loss that a reader accepts for speed."""

MENTIONED = 4


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One finding: ``lead`` names the question it answers."""

    lead: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure of the chosen row."""

    label: str
    value: str
    note: str = ""


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
        sentences = (
            *speed,
            *self._most_accurate(rows, reference),
            *self._smallest(rows, reference, choice),
        )
        return Judgement(
            machine=rows[0].machine,
            model=rows[0].model,
            dataset=rows[0].dataset,
            headline=name(choice) if choice else "No recommendation",
            choice=choice,
            tiles=self._tiles(choice, reference) if choice else (),
            sentences=sentences,
        )

    def _speed(
        self, rows: Sequence[Row], reference: Row | None
    ) -> tuple[Row | None, list[Sentence]]:
        if self.tiers.get(rows[0].run) == "smoke":
            text = "Tier smoke times too briefly to compare: measure with tier rapid or longer."
            return None, [Sentence(lead="Speed", text=text)]
        if reference is None:
            text = "No float export of this model was scored, so no loss of accuracy can be judged."
            return None, [Sentence(lead="Speed", text=text)]
        paces = {
            row.key: pace
            for row in rows
            if not row.tainted and row.accuracy and (pace := self.timings.pace(row))
        }
        timed = sorted(
            (row for row in rows if row.key in paces), key=lambda row: paces[row.key].p50
        )
        fitting = [
            row for row in timed if self._standing(row, reference) in ("reference", "within")
        ]
        if not fitting:
            text = (
                "No row has both a licensed median latency and a score that is proven to lie"
                f" within {points(self.margin)} of the float reference."
            )
            return None, [Sentence(lead="Speed", text=text), *self._faster(timed, None, reference)]
        choice, finding = self._fastest(fitting, paces)
        sentences = [finding, *self._gain(choice, fitting, reference, paces)]
        if choice.threads != 1:
            single = next((row for row in fitting if row.threads == 1), None)
            if single is not None:
                text = f"{_pair(single)}, {_takes(paces[single.key])}."
                sentences.append(Sentence(lead="Fastest on one thread", text=text))
        faster = timed[: timed.index(choice)]
        return choice, [*sentences, *self._faster(faster, choice, reference)]

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
        within = f"within {points(self.margin)} of mAP of the float reference"
        text = f"{_takes(paces[chosen.key])}, the fastest {within}"
        others = [row for row in [first, *ties] if row is not chosen]
        if others:
            text += f"; indistinguishable from {_names(others)}, and the smallest of them"
        if unknown:
            text += (
                f"; that is by the median alone: {self._why_unknown(first)},"
                f" so {_names(unknown)} may be as fast"
            )
        if len(fitting) == 1:
            text += "; no other row qualifies"
        return chosen, Sentence(lead="Fastest", text=f"{text}.")

    def _gain(
        self,
        choice: Row,
        fitting: Sequence[Row],
        reference: Row,
        paces: Mapping[str, Pace],
    ) -> list[Sentence]:
        """How much faster than the float reference, and at which loss."""
        sentences = []
        floats = [row for row in fitting if row.artifact and row.artifact.precision == "float32"]
        own = [row for row in fitting if scores.same_accuracy_cell(row, reference)]
        said = []
        if floats and choice not in floats:
            text = self._ratio(floats[0], choice, paces)
            said.append(f"{text} the fastest float row, {_timed(floats[0], paces)}")
        if own and choice not in own and own[0] is not next(iter(floats), None):
            text = self._ratio(own[0], choice, paces)
            said.append(f"{text} the float reference, {_timed(own[0], paces)}")
        if said:
            sentences.append(Sentence(lead="Gain", text=f"{'; '.join(said)}."))
        loss = self._loss(choice, reference)
        if loss:
            sentences.append(Sentence(lead="Cost", text=loss))
        return sentences

    def _ratio(self, slow: Row, quick: Row, paces: Mapping[str, Pace]) -> str:
        """``2.34× faster than``, as far as a test supports it."""
        outcome = self._outcome(slow, quick)
        times = f"{ratio(paces[slow.key], paces[quick.key]):.2f}×"
        return {
            "faster": f"{times} faster than",
            "slower": "slower than",
            "indistinguishable": "indistinguishable in speed from",
        }.get(outcome, f"{times} faster by the median, which is not proven, than")

    def _faster(self, rows: Sequence[Row], choice: Row | None, reference: Row) -> list[Sentence]:
        """Rows with a better median that are passed over, and why."""
        sentences = []
        unclear = [r for r in rows if self._standing(r, reference) in ("unclear", "unknown")]
        beyond = [r for r in rows if self._standing(r, reference) == "beyond"]
        if unclear:
            text = (
                f"{_names(unclear)}: a loss of {points(self.margin)} or more is not excluded."
                " Score more images to decide."
            )
            lead = "Perhaps faster still" if choice else "Undecided"
            sentences.append(Sentence(lead=lead, text=text))
        if beyond:
            losses = [
                f"{_pair(row)} ({self._points_lost(row, reference)})" for row in _once(beyond)
            ]
            text = f"{listing(losses[:MENTIONED])}: proven to lose more than {points(self.margin)}."
            lead = "Faster, but less accurate" if choice else "Less accurate"
            sentences.append(Sentence(lead=lead, text=text))
        return sentences

    def _most_accurate(self, rows: Sequence[Row], reference: Row | None) -> list[Sentence]:
        scored = [row for row in _once(rows) if scores.score(row.accuracy, self.metric)]
        if not scored:
            return [Sentence(lead="Most accurate", text="No row was scored.")]

        def value(row: Row) -> float:
            found = scores.score(row.accuracy, self.metric)
            return found.value if found else 0.0

        best = max(scored, key=value)
        equal = [row for row in scored if row is not best and value(row) == value(best)]
        text = f"{_pair(best)}, mAP {percent(value(best))} %"
        if equal:
            text += f"; exactly the same: {_pairs(equal)}"
        others = [row for row in scored if row is not best and row not in equal]
        level = [row for row in others if self._not_worse(row, reference)]
        if level:
            text += f"; not proven worse than the float reference: {_pairs(level)}"
        return [Sentence(lead="Most accurate", text=f"{text}.")]

    def _smallest(
        self, rows: Sequence[Row], reference: Row | None, choice: Row | None
    ) -> list[Sentence]:
        sized = [row for row in _once(rows) if row.size_bytes and row.accuracy]
        if not sized:
            return []
        least = min(row.size_bytes or 0 for row in sized)
        smallest = [row for row in sized if row.size_bytes == least]
        text = f"{_pairs(smallest)}, {megabytes(least)} MB"
        if reference is not None and reference.size_bytes and reference.size_bytes != least:
            text += f" ({reference.size_bytes / least:.1f}× smaller than the float reference)"
        if any(scores.same_accuracy_cell(row, choice) for row in smallest):
            return [Sentence(lead="Smallest", text=f"{text}: the recommended export.")]
        loss = self._loss(smallest[0], reference) if len(smallest) == 1 and reference else ""
        return [Sentence(lead="Smallest", text=f"{text}. {loss}".strip())]

    def _tiles(self, choice: Row, reference: Row | None) -> tuple[Tile, ...]:
        tiles = []
        for metric, label in (
            ("latency.inference", "inference, p50"),
            (END_TO_END, "end to end, p50"),
        ):
            pace = self.timings.pace(choice, metric)
            if pace:
                note = f"95 % interval {duration(pace.low)} to {duration(pace.high)}"
                tiles.append(Tile(label=label, value=duration(pace.p50), note=note))
        found = scores.score(choice.accuracy, self.metric)
        if found:
            interval = (
                f"95 % interval {percent(found.low)} to {percent(found.high)} %"
                if (found.low is not None and found.high is not None)
                else ""
            )
            label = scores.METRICS[self.metric]
            tiles.append(Tile(label=label, value=f"{percent(found.value)} %", note=interval))
        difference = scores.change(choice, reference, self.metric)
        if difference and not scores.same_accuracy_cell(choice, reference):
            tiles.append(
                Tile(
                    label="against float",
                    value=f"{signed_points(difference.difference)} points",
                    note=_interval_of(difference),
                )
            )
        if choice.size_bytes:
            tiles.append(Tile(label="model files", value=f"{megabytes(choice.size_bytes)} MB"))
        return tuple(tiles)

    def _standing(self, row: Row, reference: Row) -> scores.Standing:
        return scores.standing(row, reference, self.metric, self.margin)

    def _outcome(self, a: Row, b: Row) -> str:
        verdict = compare(a, b, self.floors.get(a.run))
        return verdict.outcome if verdict else "cannot tell"

    def _why_unknown(self, row: Row) -> str:
        if self.floors.get(row.run) is None:
            return "the run measured no noise floor"
        return "the samples allow no test"

    def _points_lost(self, row: Row, reference: Row) -> str:
        found = scores.change(row, reference, self.metric)
        return f"{signed_points(found.difference)} points" if found else "not scored"

    def _not_worse(self, row: Row, reference: Row | None) -> bool:
        if scores.same_accuracy_cell(row, reference):
            return True
        found = scores.change(row, reference, self.metric)
        return found is not None and found.high is not None and found.high >= 0

    def _loss(self, row: Row, reference: Row) -> str:
        """``mAP 83.8 %, −0.4 points against the float reference (95 % interval …).``"""
        found = scores.score(row.accuracy, self.metric)
        difference = scores.change(row, reference, self.metric)
        if found is None or difference is None:
            return ""
        if scores.same_accuracy_cell(row, reference):
            return f"It is the float reference itself, mAP {percent(found.value)} %."
        said = f"mAP {percent(found.value)} %, {signed_points(difference.difference)} points"
        interval = _interval_of(difference)
        return f"{said} against the float reference{f' ({interval})' if interval else ''}."


def points(fraction: float) -> str:
    """``1 point``, ``0.5 points``."""
    value = 100 * fraction
    return f"{value:g} point{'' if value == 1 else 's'}"


def name(row: Row) -> str:
    """Export, runner and threads."""
    return f"{_pair(row)}, {count(row.threads, 'thread')}"


def _pair(row: Row) -> str:
    return row.pair


def _timed(row: Row, paces: Mapping[str, Pace]) -> str:
    return f"{name(row)}, {_takes(paces[row.key])}"


def _takes(pace: Pace) -> str:
    return f"p50 {duration(pace.p50)}"


def _names(rows: Sequence[Row]) -> str:
    return _listed([name(row) for row in rows])


def _pairs(rows: Sequence[Row]) -> str:
    return _listed([_pair(row) for row in rows])


def _listed(names: list[str]) -> str:
    """Up to `MENTIONED` names; ``;`` between them, for a name holds commas."""
    more = len(names) - MENTIONED
    shown = names if more <= 1 else [*names[:MENTIONED], f"{more} others"]
    return "; ".join(shown)


def _once(rows: Sequence[Row]) -> list[Row]:
    """The first row of each accuracy cell."""
    found: dict[int, Row] = {}
    for row in rows:
        if row.accuracy:
            found.setdefault(id(row.accuracy), row)
    return list(found.values())


def _interval_of(change: scores.Change) -> str:
    if change.low is None or change.high is None:
        return ""
    how = "paired" if change.paired else "not paired"
    return f"95 % interval {signed_points(change.low)} to {signed_points(change.high)}, {how}"
