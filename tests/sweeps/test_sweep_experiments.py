"""What a sweep's experiments are read for, with real Git and the layout of DVC's cache."""

import json
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from synthetic import Experiment, write_experiments

from fieldguide.core.errors import SweepError
from fieldguide.core.params import load_params
from fieldguide.sweeps.experiments import (
    experiments_of,
    free_models,
    missing,
    read_result,
)
from fieldguide.sweeps.ranking import rank
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.sweep_file import load_sweep

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")

# Made-up hashes; the cache is laid out as DVC's.
HASHES = {name: f"{name}{'0' * 31}" for name in "abcdef"}


def lock(*outs):
    entries = "".join(f"    - {{path: out{k}, md5: {md5}}}\n" for k, md5 in enumerate(outs))
    return f"schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n{entries}"


@pytest.fixture
def record(tmp_path):
    """Four trials, the best first."""
    space = {"learning_rate": {"values": [0.1, 0.2, 0.3, 0.4]}}
    sweep = {"method": "grid", "metric": {"name": "val/acc"}, "parameters": space}
    path = tmp_path / "search.yaml"
    path.write_text(json.dumps(sweep))
    found = Record(load_sweep(path, BASE), BASE)
    while run := found.next():
        found.finish(run, score=0.9 - run.number / 10, epochs=24, seconds=1)
    return found


@pytest.fixture
def project(record, tmp_path):
    """Each model is a folder of two files.

    All models share the file f; the file c of trial 2 is in a branch's dvc.lock too.
    """
    experiments = [
        Experiment(name, extra={"dvc.lock": lock(f"{HASHES[letter]}.dir")})
        for name, letter in zip(record.results, "abcd", strict=True)
    ]
    root = tmp_path / "repository"
    record.keep("baseline", write_experiments(root, experiments))
    subprocess.run(["git", "checkout", "-q", "-b", "kept"], cwd=root, check=True)
    (root / "dvc.lock").write_text(lock(HASHES["c"]))
    subprocess.run(["git", "add", "dvc.lock"], cwd=root, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "x"], cwd=root, check=True)
    Repo.init(str(root), force=True).close()
    cache = root / ".dvc/cache/files/md5"
    for name in "abcd":
        one, both = HASHES[name], HASHES["f"]
        write(cache / one[:2] / f"{one[2:]}.dir", f'[{{"md5": "{one}"}}, {{"md5": "{both}"}}]')
        write(cache / one[:2] / one[2:], name * 1000)
    write(cache / HASHES["f"][:2] / HASHES["f"][2:], "f" * 1000)
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o444)  # as DVC does


def left(root):
    return sorted(
        path.parent.name[0] + ("." if path.suffix else "")
        for path in (root / ".dvc/cache/files/md5").rglob("*")
        if path.is_file()
    )


@pytest.fixture
def free(project, record):
    def run(**options):
        return free_models(project, record, rank(record.ended, record.sweep), **options)

    return run


def test_losers_models_go_and_what_others_need_stays(project, record, free):
    everything = ["a", "a.", "b", "b.", "c", "c.", "d", "d.", "f"]
    assert left(project) == everything
    planned = free(keep_top=2, dry_run=True)
    assert left(project) == everything
    freed = free(keep_top=2)
    assert freed == planned
    # c's file is in a branch; f in the models that are kept.
    assert left(project) == ["a", "a.", "b", "b.", "c", "f"]
    files, size = freed
    assert files == 3
    assert size > 1000
    assert len(experiments_of(project, record.facts["baseline"])) == 4
    assert free(keep_top=2) == (0, 0)


def test_files_that_the_workspace_needs_stay(project, free):
    (project / "dvc.lock").write_text(lock(f"{HASHES['d']}.dir"))
    free(keep_top=1)
    assert left(project) == ["a", "a.", "c", "d", "d.", "f"]


def test_files_that_any_dvc_file_names_in_the_workspace_or_in_history_stay(project, free):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=project, check=True)

    # d is named in an uncommitted .dvc file, c on the side of a merge that changed nothing.
    write(project / "keep" / "weights.dvc", f"outs:\n- md5: {HASHES['d']}.dir\n  path: weights\n")
    git("checkout", "-q", "-b", "side")
    write(project / "sub" / "dvc.lock", lock(f"{HASHES['c']}.dir"))
    git("add", "sub")
    git("commit", "-q", "-m", "side")
    git("checkout", "-q", "kept")
    git("merge", "-q", "-s", "ours", "-m", "merge", "side")
    git("branch", "-q", "-D", "side")
    free(keep_top=1)
    assert left(project) == ["a", "a.", "c", "c.", "d", "d.", "f"]


def test_a_shared_cache_is_left_alone(project, free, tmp_path):
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    with pytest.raises(SweepError, match="lies outside the project"):
        free(keep_top=1)


def test_experiments_belong_to_a_sweep_by_baseline_and_name(project, record):
    assert missing(project, record) == []
    gone, other = list(record.results)[:2]
    here = experiments_of(project, record.facts["baseline"])
    for name in (gone, other):
        ref = f"refs/exps/{record.facts['baseline'][:2]}/{record.facts['baseline'][2:]}/{name}"
        subprocess.run(["git", "update-ref", "-d", ref], cwd=project, check=True)
    # An experiment of that name on another baseline, as a colleague may push it, is not the trial.
    ref = f"refs/exps/00/{'0' * 38}/{gone}"
    subprocess.run(["git", "update-ref", ref, here[gone]], cwd=project, check=True)
    assert missing(project, record) == [gone, other]


@pytest.mark.parametrize("best", [None, {"val_acc": "0.5"}, {"val_acc": float("nan")}])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path, best):
    baseline = write_experiments(tmp_path / "r", [Experiment("b-0001_x", best=best)])
    commit = experiments_of(tmp_path / "r", baseline)["b-0001_x"]
    with pytest.raises(SweepError, match="has no finite best value of val/acc"):
        read_result(tmp_path / "r", commit, "val/acc")


def test_a_result_has_score_epochs_and_seconds(tmp_path):
    one = Experiment(
        "b-0001_x",
        best={"val_acc": 0.75, "val_loss": 0.5},
        seconds=12.5,
        curves={"val/acc": [0.25, 0.75, 0.5]},
    )
    cached = Experiment("b-0002_x", best={"val_acc": 0.75}, seconds=None)
    baseline = write_experiments(tmp_path / "r", [one, cached])
    commits = experiments_of(tmp_path / "r", baseline)
    assert read_result(tmp_path / "r", commits["b-0001_x"], "val/acc") == (0.75, 3, 12.5)
    assert read_result(tmp_path / "r", commits["b-0001_x"], "val/loss") == (0.5, 3, 12.5)
    assert read_result(tmp_path / "r", commits["b-0002_x"], "val/acc") == (0.75, 0, 0)
