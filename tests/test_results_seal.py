"""Records that were edited, cut off or written by a newer program are named, not believed."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from harness import results
from harness.errors import ResultsError
from harness.records import RunRecord, decode, encode
from harness.seal import digest_of, seal, written_digest
from tests.run_folders import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "results", name="nightly")


def _a_latency_record(run: Path) -> Path:
    return sorted(run.glob("cells/*latency*.json"))[0]


def test_what_was_written_is_read_and_its_digest_is_that_of_its_bytes(run: Path) -> None:
    _, plan, records, _ = results.load_run(run)
    assert records
    assert plan.digest
    path = _a_latency_record(run)
    assert written_digest(path.read_bytes()) == digest_of(path.read_bytes())


def test_an_edited_figure_is_named_with_both_digests(run: Path) -> None:
    path = _a_latency_record(run)
    text = path.read_text()
    said = json.loads(text)["digest"]
    value = json.loads(text)["measurements"]
    shown = next(m["value"] for m in value if m["metric"] == "latency.inference")
    path.write_text(text.replace(f'"value": {shown}', f'"value": {shown / 2}'))
    with pytest.raises(ResultsError, match="was edited") as caught:
        results.load_run(run)
    assert str(path) in str(caught.value)
    assert said[:12] in str(caught.value)


def test_an_edited_noise_floor_is_named(run: Path) -> None:
    path = run / "run.json"
    path.write_text(path.read_text().replace('"noise_floor": 0.012', '"noise_floor": 0.001'))
    with pytest.raises(ResultsError, match=r"run\.json was edited"):
        results.load_run(run)


def test_a_record_cut_off_is_named(run: Path) -> None:
    path = _a_latency_record(run)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResultsError, match="is not valid JSON"):
        results.load_run(run)


def test_a_newer_schema_is_refused_with_both_numbers(run: Path) -> None:
    path = _a_latency_record(run)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with pytest.raises(ResultsError, match="schema 7, this program reads up to 1: update"):
        results.load_run(run)


def test_line_ends_are_no_edit(run: Path) -> None:
    path = _a_latency_record(run)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert results.load_run(run)[2]


def test_a_record_from_before_digests_is_read(run: Path) -> None:
    path = _a_latency_record(run)
    plain = json.loads(path.read_text())
    del plain["digest"], plain["evidence"]
    path.write_text(json.dumps(plain))
    assert results.read_sealed(path, RunRecord).digest is None


def test_only_the_digest_at_the_top_level_counts(run: Path) -> None:
    record = results.read_sealed(_a_latency_record(run), RunRecord)
    first = msgspec.structs.replace(record.measurements[0], conditions={"digest": "0" * 64})
    nested = msgspec.structs.replace(record, measurements=(first,), digest=None)
    sealed = seal(encode(nested))
    assert written_digest(sealed) == digest_of(sealed)
    assert decode(sealed, RunRecord, "it").measurements[0].conditions == {"digest": "0" * 64}


def test_a_machine_that_is_no_object_is_named(run: Path) -> None:
    (run.parent / "machine.json").write_text("[]")
    with pytest.raises(ResultsError, match="not a machine's record"):
        results.load_run(run)
