"""Child processes: what the supervisor costs, and what becomes of a child that misbehaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.children import excerpt, run_child
from harness.records import Cell
from harness.tasks import MeasureTask


def _task(plugin: Path) -> MeasureTask:
    cell = Cell(
        model="none",
        model_options={},
        weights="none",
        exporter="none",
        export_options={},
        runner="none",
        measure="latency",
        threads=1,
    )
    return MeasureTask(
        cell=cell,
        folder="/nowhere",
        images=1,
        tier="smoke",
        round=0,
        rounds=1,
        seed=0,
        plugins=(str(plugin),),
    )


def _plugin(folder: Path, text: str) -> Path:
    path = folder / "plugin.py"
    path.write_text(text)
    return path


def test_the_supervisor_sleeps_while_a_child_works(tmp_path: Path) -> None:
    """METHOD rule 8: under 1 % of a core, counted in CPU time of this process."""
    plugin = _plugin(tmp_path, "import time; time.sleep(3)")
    started, cpu = time.monotonic(), time.process_time()
    run_child(_task(plugin), folder=tmp_path, name="sleeper", timeout_s=60)
    spent, elapsed = time.process_time() - cpu, time.monotonic() - started
    assert elapsed > 3
    assert spent / elapsed < 0.01


def test_a_child_that_outlives_its_time_is_killed_with_its_own_children(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    grandchild = f"while true; do touch {marker}; sleep 0.05; done"
    text = f"import subprocess\nsubprocess.run(['bash', '-c', {grandchild!r}])"
    result = run_child(_task(_plugin(tmp_path, text)), folder=tmp_path, name="parent", timeout_s=4)
    assert result.state == "timeout"
    assert marker.exists()
    time.sleep(0.3)
    marker.unlink()
    time.sleep(0.5)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "state", "said"),
    [
        ("import os; os._exit(3)", "crashed", "ended with code 3 and no result"),
        ("import os; os.abort()", "crashed", "killed by SIGABRT"),
        ("raise ValueError('not today')", "crashed", "not today"),
        ("raise SystemExit(5)", "crashed", "ended with code 5"),
    ],
)
def test_how_a_child_ended_is_said(tmp_path: Path, text: str, state: str, said: str) -> None:
    result = run_child(_task(_plugin(tmp_path, text)), folder=tmp_path, name="child", timeout_s=60)
    assert result.state == state
    assert said in (result.error or "")
    assert result.elapsed_ns > 0


def test_a_damaged_result_is_a_crash_not_a_result(tmp_path: Path) -> None:
    half = '{"state": "o'
    text = "import os, sys, pathlib\n"
    text += f"pathlib.Path(sys.argv[2]).write_text({half!r})\nos._exit(0)"
    result = run_child(_task(_plugin(tmp_path, text)), folder=tmp_path, name="child", timeout_s=60)
    assert result.state == "crashed"
    assert "is not valid JSON" in (result.error or "")


def test_logs_are_kept_and_their_end_is_shown(tmp_path: Path) -> None:
    text = "print('\\n'.join(f'line {n}' for n in range(100)))\nimport os; os._exit(1)"
    run_child(_task(_plugin(tmp_path, text)), folder=tmp_path, name="chatty", timeout_s=60)
    log = tmp_path / "logs" / "chatty.log"
    assert "line 0\n" in log.read_text()
    shown = excerpt(log).splitlines()
    assert shown[-1] == "line 99"
    assert len(shown) == 40
