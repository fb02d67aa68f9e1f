"""Reading a sweep's trials from refs/exps, with real Git."""

from datetime import UTC, datetime

import pytest
from synthetic import START, Experiment, add_experiments, random_experiments, write_experiments

from fieldguide.core.errors import GitError
from fieldguide.sweeps.experiments import read_curves, read_trials, sweep_names


def test_a_trial_has_its_parameters_scores_and_seconds(repository):
    one = Experiment(
        "shapes-0012_lr0.01_s3",
        params={"model.activation": "mish", "train.learning_rate": 1e-05, "train.seed": 3},
        best={"val_acc": 0.75, "val_loss": 0.5, "epoch": 4},
        created=START + 90,
        seconds=12.5,
    )
    (trial,) = read_trials(repository([one]), "shapes")
    assert (trial.name, trial.number, trial.seed) == ("shapes-0012_lr0.01_s3", 12, 3)
    assert trial.created == datetime.fromtimestamp(START + 90, UTC)
    assert trial.params["model.activation"] == "mish"
    assert trial.params["train.learning_rate"] == 1e-05
    assert trial.params["data.image_size"] == 32
    assert trial.score("val/acc") == 0.75
    assert trial.score("val/loss") == 0.5
    assert trial.seconds == 12.5
    assert not trial.pruned


def test_missing_values_are_none_and_a_pruned_trial_says_so(repository):
    (trial,) = read_trials(
        repository([Experiment("shapes-0001_a", seconds=None, pruned=True)]), "shapes"
    )
    assert trial.seed is None
    assert trial.score("val/acc") is None
    assert trial.seconds == 0
    assert trial.pruned


def test_a_score_that_is_text_is_none(repository):
    one = Experiment("shapes-0001_a", best={"val_acc": "0.5"})
    (trial,) = read_trials(repository([one]), "shapes")
    assert trial.score("val/acc") is None


def test_oldest_first_and_only_of_this_sweep(repository):
    names = ["b-0002_x", "b-0001_x", "other-0001_x", "b-c-0001_x", "loose-hint", "b-12_x"]
    root = repository([Experiment(name, created=START - k) for k, name in enumerate(names)])
    assert [trial.name for trial in read_trials(root, "b")] == ["b-0001_x", "b-0002_x"]
    assert sweep_names(root) == ["b", "b-c", "other"]


def test_dvcs_own_references_are_no_trials(tmp_path):
    base = write_experiments(tmp_path, [Experiment("b-0001_x")])
    other = "0" * 39 + "1"
    add_experiments(tmp_path, [Experiment("b-0002_x")], base)
    for ref in ("refs/exps/exec/EXEC_BASELINE", "refs/exps/celery/b-0003_x"):
        (tmp_path / ".git" / ref).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".git" / ref).write_text(base, encoding="utf-8")
    # Another baseline: a commit does not end a sweep.
    path = tmp_path / ".git" / "refs/exps" / other[:2] / other[2:] / "b-0004_x"
    path.parent.mkdir(parents=True)
    path.write_text(base, encoding="utf-8")
    assert [trial.number for trial in read_trials(tmp_path, "b")] == [1, 2, 4]


def test_curves_are_read_by_epoch_and_only_those_there_are(repository):
    curves = {"val/acc": [0.25, 0.5, 0.375], "train/loss": [2.0, 1.5, 1.25]}
    root = repository([Experiment("b-0001_x", curves=curves), Experiment("b-0002_x")])
    first, second = read_trials(root, "b")
    assert read_curves(root, first) == curves
    assert read_curves(root, second) == {}


def test_many_are_read(repository):
    experiments = list(random_experiments(60, seeds=2))
    trials = read_trials(repository(experiments), "space")
    assert {t.name: t.params["model.dropout"] for t in trials} == {
        e.name: e.params["model.dropout"] for e in experiments
    }


def test_no_trials_and_no_repository(repository, tmp_path):
    assert read_trials(repository([]), "b") == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(GitError, match=r"git for-each-ref failed in .*empty: .*repository"):
        read_trials(tmp_path / "empty", "b")
