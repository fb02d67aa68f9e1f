import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table as RichTable

from fieldguide.core.params import load_params
from fieldguide.sweeps.record import DONE, Record
from fieldguide.sweeps.sweep_file import load_sweep
from fieldguide.sweeps.table import Table

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "search.yaml"
    definition = {
        "method": "random",
        "metric": {"name": "val/acc"},
        "parameters": {"train.seed": {"min": 0, "max": 2**32 - 1}},
        "run_cap": 100,
    }
    path.write_text(json.dumps(definition))
    found = Table(Record(load_sweep(path, BASE), BASE))
    found._console = Console(file=io.StringIO(), width=200)
    return found


def test_on_a_terminal_twenty_trials_are_shown_twice_a_second(table, monkeypatch):
    now, rows, add_row = [1000.0], [], RichTable.add_row
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        RichTable, "add_row", lambda self, *cells: (rows.append(cells), add_row(self, *cells))
    )
    table._console = Console(file=io.StringIO(), force_terminal=True, width=200)
    runs = [table._record.propose() for _ in range(60)]
    running = {run.name: run for run in runs}
    with table:
        for run in runs:
            table.started(run)
        now[0] += 9
        for _ in range(1000):  # as many events as a thousand trials have
            table.update(running, {runs[3].name: {1: {"val/acc": 0.25}, 2: {"val/acc": 0.5}}})
        assert len(rows) == 20
        assert [str(cell) for cell in rows[3]] == [runs[3].name, "2", "0.5000", "9"]
        assert [str(cell) for cell in rows[4]] == [runs[4].name, "–", "–", "9"]
        now[0] += 0.5
        table.update(running, {})
        assert len(rows) == 40


def test_the_time_that_is_left_by_hand(table, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    runs = [table._record.propose() for _ in range(4)]
    for run in runs:
        table.started(run)
    table.update({run.name: run for run in runs}, {})
    for run, seconds in zip(runs, (30, 30, 60), strict=False):  # it took 30, 60 and 120 s
        now[0] += seconds
        table._record.end(run, DONE, score=0.5, seconds=1)
        table.ended(run)
    # 97 trials of 70 s, four at a time: 28.3 minutes.
    assert "1 running, 3 done" in table._state(1)
    assert "about 28 min left" in table._state(1)
