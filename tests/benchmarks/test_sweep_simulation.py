"""The simulated pool behaves as workers do; the figures of the simulation depend on it."""

import json

import pytest
import sweep_simulation
from sweep_simulation import measure, simulate

WORKERS, CONFIGURATIONS = 9, 150


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_simulation, "INTERRUPTED", 0.05)
        return simulate(tmp_path_factory.mktemp("simulation"), CONFIGURATIONS, WORKERS)


def test_every_run_ends_once(driver):
    record = driver.record
    keys = [one.run.key for one in record.ended]
    assert len(set(keys)) == len(keys)
    assert {key[0] for key in keys} | _failed(record) == set(range(CONFIGURATIONS))
    overrides = {json.dumps(one.run.overrides) for one in record.ended}
    assert len(overrides) == len(keys)
    assert record.next() is None


def test_interrupted_runs_are_started_again_and_faulty_ones_are_not(driver):
    pool = driver.pool
    assert pool.interrupted.total() > 0
    assert all(count == 1 + pool.interrupted[key] for key, count in pool.starts.items())
    assert {failure["reason"] for failure in driver.record.failed.values()} == {
        "simulated: the params are at fault"
    }


def test_workers_are_busy_until_no_run_is_left(driver):
    """Nobody waits for another one: time passes as if each worker always had a run."""
    # 24 epochs for a whole training; what ended earlier was trained for less.
    epochs = sum(one.epochs for one in driver.record.results.values())
    least = epochs * 20 / WORKERS  # virtual seconds, if no worker is ever free
    assert 0.7 * least < driver.pool.now < 1.6 * least


def test_the_row_counts_all_runs():
    row = measure(60, 4)
    assert row["runs"] >= 60
    assert 1 <= row["whole"] <= 60


def _failed(record):
    return {int(name.split("-")[1].split("_")[0]) for name in record.failed}
