import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from fieldguide.core.params import load_params
from fieldguide.sweeps.progress import Progress
from fieldguide.sweeps.record import DONE, Record
from fieldguide.sweeps.sweep_file import load_sweep

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


@pytest.fixture
def progress(tmp_path):
    path = tmp_path / "search.yaml"
    definition = {
        "method": "random",
        "metric": {"name": "val/acc"},
        "parameters": {"train.seed": {"min": 0, "max": 2**32 - 1}},
        "run_cap": 100,
    }
    path.write_text(json.dumps(definition))
    found = Progress(Record(load_sweep(path, BASE), BASE))
    found._console = Console(file=io.StringIO(), width=200)
    return found


def test_on_a_terminal_twenty_trials_are_shown_twice_a_second(progress, monkeypatch):
    now, rows, add_row = [1000.0], [], Table.add_row
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        Table, "add_row", lambda self, *cells: (rows.append(cells), add_row(self, *cells))
    )
    progress._console = Console(file=io.StringIO(), force_terminal=True, width=200)
    trials = [progress._record.propose() for _ in range(60)]
    running = {trial.name: trial for trial in trials}
    with progress:
        for trial in trials:
            progress.started(trial)
        now[0] += 9
        for _ in range(1000):  # as many events as a thousand trials have
            progress.update(running, {trials[3].name: {1: {"val/acc": 0.25}, 2: {"val/acc": 0.5}}})
        assert len(rows) == 20
        assert [str(cell) for cell in rows[3]] == [trials[3].name, "2", "0.5000", "9"]
        assert [str(cell) for cell in rows[4]] == [trials[4].name, "–", "–", "9"]
        now[0] += 0.5
        progress.update(running, {})
        assert len(rows) == 40


def test_the_time_that_is_left_by_hand(progress, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    trials = [progress._record.propose() for _ in range(4)]
    for trial in trials:
        progress.started(trial)
    progress.update({trial.name: trial for trial in trials}, {})
    for trial, seconds in zip(trials, (30, 30, 60), strict=False):  # it took 30, 60 and 120 s
        now[0] += seconds
        progress._record.end(trial, DONE, score=0.5, seconds=1)
        progress.ended(trial)
    # 97 trials of 70 s, four at a time: 28.3 minutes.
    assert "1 running, 3 done" in progress._state(1)
    assert "about 28 min left" in progress._state(1)
