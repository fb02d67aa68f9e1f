"""The simulation counts workers and trials correctly; its figures depend on these counts."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from sweep_simulation import World, figures, simulate

WORKERS, TRIALS = 9, 220


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A sweep with many failures: a worker lives only as long as a few trials."""
    world = World(
        workers=WORKERS, epochs=24, faulty=0.1, lifetime=1500, away=200, join_within=900, seed=3
    )
    return simulate(tmp_path_factory.mktemp("simulation"), TRIALS, world)


def test_every_configuration_is_proposed_once_and_ends_once(result):
    runs = result.record.proposed()
    assert [run.number for run in runs] == list(range(TRIALS))
    assert len({json.dumps(run.overrides) for run in runs}) == TRIALS
    assert result.pool.log_.ends == Counter(run.name for run in runs)
    assert all(result.record.ended(run) for run in runs)
    assert result.record.left() == 0


def test_lost_trials_are_started_again_and_faulty_ones_are_not(result):
    log = result.pool.log_
    assert log.lost.total() > 20
    for run in result.record.proposed():
        assert log.starts[run.name] == 1 + log.lost[run.name]
    runs = result.record.proposed()
    failed = [run for run in runs if result.record.ended(run)["state"] == "failed"]
    assert 5 < len(failed) < 50
    reasons = {result.record.ended(run)["reason"] for run in failed}
    assert reasons == {"simulated: the params are at fault"}


def test_no_worker_has_two_trials_at_a_time(result):
    for worker in range(WORKERS):
        held = sorted(one[1:3] for one in result.pool.log_.held if one[0] == worker)
        assert all(end <= start for (_, end), (start, _) in pairwise(held))
        computing = sorted(one[1:] for one in result.pool.log_.computing if one[0] == worker)
        assert all(end <= start for (_, end), (start, _) in pairwise(computing))
        assert len(held) > 1


def test_no_trial_waits_for_another(result):
    """Workers are idle only while the driver works."""
    row = figures(result)
    assert row["done"] + row["pruned"] + row["failed"] == row["trials"] == TRIALS
    assert row["pruned"] > TRIALS / 4
    # The driver is far from its limit here. If workers waited for the slowest trial, they would be
    # idle for a third of the time, because trials last between one and 24 epochs.
    assert 0 < row["idle %"] < 2


def test_a_sweep_continues_when_its_only_worker_is_back(tmp_path):
    world = World(workers=1, epochs=24, lifetime=300, away=100, seed=1)
    result = simulate(tmp_path, 20, world)
    assert len(result.pool.log_.away) > 3
    assert result.record.left() == 0
