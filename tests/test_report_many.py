"""A report over 2,000 records: made in less than 10 s of CPU time, less than 5 MB to open."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest

from harness import results
from harness.commands.report import write
from harness.records import encode
from harness.results import Run
from harness.seal import seal
from tests.report_runs import made_up_run

MACHINES, RUNS = 10, 5
"""With the cells of `made_up_run` they make 2,050 records of 2,100 planned cells."""


def _write(folder: Path, number: int) -> None:
    """A run as its files, without waiting for the disk at each."""
    data = made_up_run(machine=folder.parent.name, slower=1 + number / 100)
    (folder / "cells").mkdir(parents=True)
    (folder / "artifacts").mkdir()
    plain = msgspec.convert({**data.run, "name": folder.name}, Run)
    (folder / "run.json").write_bytes(seal(encode(plain)))
    (folder.parent / "machine.json").write_bytes(msgspec.json.encode(data.machine))
    for record in data.records:
        (folder / "cells" / f"{record.cell_id}.json").write_bytes(seal(encode(record)))
    for artifact in data.artifacts.values():
        name = f"{artifact.sha256[:16]}.json"
        (folder / "artifacts" / name).write_bytes(encode(artifact))


@pytest.mark.slow
def test_two_thousand_records_make_a_page_that_opens(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the charts").use("svg")
    pytest.importorskip("matplotlib.pyplot", reason="its import is not the report's time")
    for number in range(MACHINES * RUNS):
        machine, run = divmod(number, RUNS)
        _write(tmp_path / "results" / f"bench-{machine}" / f"run{run}", number)
    folders = results.find_runs([tmp_path / "results"])
    assert len(list((tmp_path / "results").glob("*/*/cells/*.json"))) >= 2000
    for _ in range(2):  # another process on the same core must not decide
        started = time.process_time()
        page = write(folders, tmp_path / "out", "Many", pictures=False)
        spent = time.process_time() - started
        if spent < 10:
            break
    print(f"{spent:.1f} s of CPU time, {page.stat().st_size / 1e6:.2f} MB")
    assert page.stat().st_size < 5e6
    assert spent < 10, f"{spent:.1f} s"
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r'<tr id="row-', text)) > 1000
