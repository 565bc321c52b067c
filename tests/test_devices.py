"""Several machines: rank agreement, the report's section, `pick`, and figures of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import results
from harness.cli import main
from harness.commands.report import write
from harness.devices.names import read_devices
from harness.devices.published import read_file
from harness.devices.ranks import agreement
from harness.errors import BadConfig
from harness.records import Round, RunRecord
from tests.report_runs import ETINY, MB2
from tests.run_folders import write_run


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlations_equal_scipys(seed: int) -> None:
    judge = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, 8, (2, 12)).astype(float).tolist()  # with ties
    found = agreement(a, b)
    assert found.tau == pytest.approx(judge.kendalltau(a, b).statistic, abs=1e-12)
    assert found.rho == pytest.approx(judge.spearmanr(a, b).statistic, abs=1e-12)
    assert found.same + found.opposite + found.tied == 12 * 11 // 2


def test_what_agreement_means() -> None:
    times = [1.0, 2.0, 4.0, 8.0]
    assert "6 of 6 pairs" in agreement(times, times).words
    assert "tells which is faster on the other" in agreement(times, times).words
    assert "measure on the machine itself" in agreement(times, times[::-1]).words
    assert "too few to say" in agreement(times[:2], times[:2]).words
    near = [1.0, 1.005, 1.01, 1.015]
    assert agreement(near, near, (0.02, 0.02)).tau is None
    assert "no two exports differ" in agreement(near, near, (0.02, 0.02)).words


def _reversed(record: RunRecord) -> RunRecord:
    """A machine on which what is slow elsewhere is fast, and with other bytes for onnx_int8."""
    changed = tuple(
        msgspec.structs.replace(m, samples=tuple(1e14 / s for s in m.samples))
        if m.metric.startswith("latency.")
        else m
        for m in record.measurements
    )
    mixed = record.cell.exporter == "onnx_int8"
    digest = "d" * 64 if mixed else record.artifact_sha256
    return msgspec.structs.replace(record, measurements=changed, artifact_sha256=digest)


def _tainted(record: RunRecord) -> RunRecord:
    return msgspec.structs.replace(record, state="tainted", error="the machine was busy")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three machines: b as a but slower, c the other way round."""
    base = tmp_path_factory.mktemp("fleet") / "results"
    write_run(base, machine="bench-a")
    write_run(base, machine="bench-b", slower=3.0)
    write_run(base, machine="bench-c", change=_reversed)
    (base / "devices.yaml").write_text(
        "small: {machine: bench-b, price: 50}\nodd: {machine: bench-c}\n"
    )
    return base


@pytest.fixture(scope="module")
def page(fleet: Path) -> str:
    assert main(["results", "import-published", "--results", str(fleet)]) == 0
    folder = fleet.parent / "report"
    write(results.find_runs([fleet]), folder, "Three machines", pictures=False)
    return (folder / "report.md").read_text(encoding="utf-8")


def _section(page: str, heading: str) -> list[str]:
    after = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line for line in after.splitlines() if line.startswith("|")]


def test_the_report_puts_machines_side_by_side(page: str) -> None:
    rows = _section(page, "Fastest on each machine")
    assert rows[0] == "| Model | Export | Runner | bench-a, ms | small, ms | odd, ms |"
    line = next(row for row in rows if (MB2 in row and "onnx\\_int8" in row) or "onnx_int8" in row)
    assert "2 threads" in line
    assert "other artifact" in next(row for row in rows if "onnx_int8" in row and MB2 in row)


def test_tainted_machines_are_named_not_dropped_in_silence(tmp_path: Path) -> None:
    base = tmp_path / "results"
    write_run(base, machine="bench-a")
    write_run(base, machine="bench-b", change=_tainted)
    write(results.find_runs([base]), tmp_path / "report", "Two machines", pictures=False)
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    rows = _section(page, "Fastest on each machine")
    assert rows[2:]
    assert all("tainted" in row for row in rows[2:])
    (said,) = [line for line in page.splitlines() if line.startswith("Left out for bench-b")]
    assert said.endswith("timed rows (tainted).")
    assert said in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_the_report_says_whether_the_order_is_the_same(page: str) -> None:
    rows = _section(page, "Is the order the same?")
    same = next(row for row in rows if "bench-a" in row and "small" in row)
    turned = next(row for row in rows if "bench-a" in row and "odd" in row)
    assert "| 1.00 | 1.00 |" in same
    assert "tells which is faster on the other" in same
    assert "−" in turned.split("|")[4]
    assert "measure on the machine itself" in turned


def _apart(record: RunRecord) -> RunRecord:
    return record


def _by_turns(record: RunRecord) -> RunRecord:
    turn = Round(
        started_at="2026-11-20T19:00:00+00:00",
        place=0,
        of=1,
        elapsed_ns=1,
        supervisor_cpu_ns=0,
        before={},
        after={},
        together=8,
        turns_floor=0.015,
    )
    return msgspec.structs.replace(record, rounds=(turn, turn))


@pytest.mark.parametrize(
    ("change", "told_apart"), [(_apart, "6 of 6 pairs"), (_by_turns, "45 of 45 pairs")]
)
def test_rows_that_took_turns_have_the_floor_of_turns(
    tmp_path: Path, change: Callable[[RunRecord], RunRecord], told_apart: str
) -> None:
    base = tmp_path / "results"
    for machine in ("bench-a", "bench-b"):
        write_run(base, machine=machine, change=change, noise_floor=9.0)
    write(results.find_runs([base]), tmp_path / "report", "Two machines", pictures=False)
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    (row,) = _section(page, "Is the order the same?")[2:]
    assert told_apart in row
    by_turns = "1.5 % by turns, " if change is _by_turns else ""
    floors = f"{by_turns}900.0 % one after the other"
    assert f"Noise floor: {floors}" in page


def test_prices_and_published_figures_have_tables_of_their_own(page: str) -> None:
    prices = _section(page, "Speed for money")
    assert all("small" in row for row in prices[2:])
    published = _section(page, "Published by others")
    assert any("i.MX 8M Plus CPU, 4 threads" in r and "70.9 ms (published)" in r for r in published)
    before = page.split("## Published by others")[0]
    assert "i.MX" not in before
    assert "70.9" not in before


@pytest.mark.slow
def test_a_report_over_several_machines_verifies(
    fleet: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = fleet.parent / "report" / "report.md"
    assert main(["verify", str(report), "--results", str(fleet)]) == 0, capsys.readouterr().out


def _pick(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["pick", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_pick_gives_the_pareto_set_and_a_reason_for_each_other(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _pick(capsys, fleet, "--device", "bench-a")
    assert code == 0
    best = [(c["p50_ns"], -c["map"], c["size_bytes"]) for c in found["best"]]
    for one in best:
        assert not any(
            other != one and all(o <= m for o, m in zip(other, one, strict=True)) for other in best
        )
    assert all(c["refused"] for c in found["refused"])
    tainted = next(c for c in found["refused"] if "tainted" in str(c["refused"]))
    assert "tflite_float" in tainted["row"]


def test_pick_holds_limits_with_their_evidence(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--max-latency", "8ms", "--min-map-ratio", "0.98")
    code, found = _pick(capsys, fleet, "--device", "bench-a", *limits)
    assert code == 0
    reasons = {c["row"]: "; ".join(c["refused"]) for c in found["refused"]}
    row = f"{MB2} torch_float on torch_cpu, 1 thread"
    assert "p50 61" in reasons[row]
    assert "is above 8.00 ms" in reasons[row]
    lossy = f"{MB2} tflite_int8 on litert_cpu, 2 threads"
    assert "not proven to be 0.98 or more" in reasons[lossy] or "below 0.98" in reasons[lossy]
    assert all(c["p50_ns"] < 8e6 for c in found["best"])


def test_pick_names_the_device_as_people_do(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _pick(capsys, fleet, "--device", "small")[1]["machine"] == "bench-b"
    code = main(["pick", str(fleet), "--device", "small", "--max-latency", "1ms"])
    text = capsys.readouterr().out
    assert code == 1
    assert text.startswith("Nothing fits on small.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-latency", "8"), "needs one of the units"),
        (("--max-latency", "8 parsecs"), "not a number with a unit"),
        (("--max-latency", "0ms"), "not above 0"),
        (("--max-size", "4ms"), "needs one of the units"),
        (("--min-map-ratio", "1.5"), "expected above 0 and up to 1"),
        (("--device", "rpi9"), "no results of a device 'rpi9'"),
        (("--device", "bench"), "give more of its name"),
        ((), "name one with --device"),
    ],
)
def test_pick_says_what_it_cannot_follow(
    fleet: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main(["pick", str(fleet), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_published_figures_are_never_read_as_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "results"
    run = write_run(base, models=[MB2])
    arguments = ["results", "import-published", "--results", str(base)]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert f"{len(read_file())} were there" in capsys.readouterr().out
    assert results.find_runs([base]) == [run]
    changed = next((base / "published").glob("i-mx-93*.json"))
    changed.write_text(changed.read_text().replace("104000000", "104000001"))
    assert main(arguments) == 2
    assert "states another figure" in capsys.readouterr().err


def test_the_shipped_figures_are_those_of_their_sources(shared: Path) -> None:
    facts = (shared / "reference" / "README.md").read_text(encoding="utf-8")
    for figure in read_file():
        shown = figure.value / 1e6 if figure.unit == "ns" else figure.value
        forms = {f"{shown:g}", f"{100 * shown:g}", f"{shown:.1f}"}
        assert any(form in facts for form in forms), figure


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("rpi4: {price: 5}", "missing required field `machine`"),
        ("rpi4: {machine: x, price: -5}", "not above 0"),
        ("[1]", "holds no keys"),
        ("a: {machine: x, colour: red}", "unknown field `colour`"),
    ],
)
def test_a_device_list_that_is_wrong_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "devices.yaml").write_text(content)
    with pytest.raises(BadConfig, match=said):
        read_devices(tmp_path)


def _added(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["results", "add", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


Change = Callable[[RunRecord], RunRecord]


def test_add_copies_a_run_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_run(tmp_path / "device", machine="rpi", models=[MB2])
    base = tmp_path / "results"
    code, text = _added(capsys, tmp_path / "device", "--results", base)
    assert code == 0
    assert "15 of 15 records added" in text or "records added" in text
    assert results.load_run(base / "rpi" / "default")[2] == results.load_run(source)[2]
    code, text = _added(capsys, tmp_path / "device", "--results", base)
    assert code == 0
    assert "0 of" in text


def test_add_merges_what_was_measured_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "results"
    write_run(base, machine="rpi", models=[MB2])
    write_run(tmp_path / "device", machine="rpi", models=[ETINY])
    code, text = _added(capsys, tmp_path / "device", "--results", base)
    assert code == 0, text
    _, run, records, _ = results.load_run(base / "rpi" / "default")
    assert {record.cell.model for record in records} == {MB2, ETINY}
    assert len(run.plan) == 42


def _other_artifact(record: RunRecord) -> RunRecord:
    return msgspec.structs.replace(record, artifact_sha256="c" * 64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slower": 1.5}, "are different records of one cell"),
        ({"change": _other_artifact}, "of artifact"),
        ({"noise_floor": 0.5}, "were measured differently (noise_floor 0.012 and 0.5)"),
        ({"tier": "quick"}, "were measured differently (tier rapid and quick)"),
    ],
)
def test_add_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], said: str
) -> None:
    base = tmp_path / "results"
    mine = write_run(base, machine="rpi", models=[MB2])
    before = {path: path.read_bytes() for path in mine.rglob("*.json")}
    write_run(tmp_path / "device", machine="rpi", models=[MB2], **options)
    code, text = _added(capsys, tmp_path / "device", "--results", base)
    assert code == 2
    assert said in text
    assert {path: path.read_bytes() for path in mine.rglob("*.json")} == before
    code, text = _added(capsys, tmp_path / "device", "--results", base, "--as", "second")
    assert code == 0, text
    assert results.load_run(base / "rpi" / "second")[1].name == "second"


def test_add_refuses_nothing_and_what_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "results"
    (tmp_path / "empty").mkdir()
    assert "holds no run.json" in _added(capsys, tmp_path / "empty", "--results", base)[1]
    source = write_run(tmp_path / "device", machine="rpi", models=[MB2])
    path = sorted(source.glob("cells/*.json"))[0]
    path.write_text(path.read_text().replace('"elapsed_ns": 8', '"elapsed_ns": 7'))
    code, text = _added(capsys, tmp_path / "device", "--results", base)
    assert code == 2
    assert f"{path} was edited" in text
    assert not base.exists()
