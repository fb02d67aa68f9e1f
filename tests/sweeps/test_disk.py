import subprocess

import pytest
from dvc.repo import Repo
from synthetic import Experiment

from fieldguide.core.errors import SweepError
from fieldguide.sweeps.experiments import free_models, read_trials
from fieldguide.sweeps.ranking import rank

# Made-up hashes; the cache is laid out as DVC's.
HASHES = {name: f"{name}{'0' * 31}" for name in "abcdef"}


def lock(*outs):
    entries = "".join(f"    - {{path: out{k}, md5: {md5}}}\n" for k, md5 in enumerate(outs))
    return f"schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n{entries}"


@pytest.fixture
def project(repository):
    """Four trials, the best first. Each model is a folder of two files.

    All models share the file f; the file c of trial 2 is in a branch's dvc.lock too.
    """
    experiments = [
        Experiment(
            name=f"search-{k:04d}_lr={k}",
            params={"train.learning_rate": k / 10},
            best={"val_acc": 0.9 - k / 10},
            extra={"dvc.lock": lock(f"{HASHES[name]}.dir")},
        )
        for k, name in enumerate("abcd")
    ]
    root = repository(experiments)
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


def free(root, **options):
    ranked = rank(read_trials(root), metric="val/acc", goal="maximize")
    return free_models(root, ranked, **options)


def test_losers_models_go_and_what_others_need_stays(project):
    everything = ["a", "a.", "b", "b.", "c", "c.", "d", "d.", "f"]
    assert left(project) == everything
    planned = free(project, keep_top=2, dry_run=True)
    assert left(project) == everything
    freed = free(project, keep_top=2)
    assert freed == planned
    assert [one.number for one in freed.kept] == [0, 1]
    assert [one.number for one in freed.lost] == [2, 3]
    # c's file is in a branch; f in the models that are kept.
    assert left(project) == ["a", "a.", "b", "b.", "c", "f"]
    assert len(freed.files) == 3
    assert freed.size > 1000
    assert len(read_trials(project)) == 4
    assert free(project, keep_top=2).files == []


def test_files_that_the_workspace_needs_stay(project):
    (project / "dvc.lock").write_text(lock(f"{HASHES['d']}.dir"))
    free(project, keep_top=1)
    assert left(project) == ["a", "a.", "c", "d", "d.", "f"]


def test_files_that_any_dvc_file_names_in_the_workspace_or_in_history_stay(project):
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
    free(project, keep_top=1)
    assert left(project) == ["a", "a.", "c", "c.", "d", "d.", "f"]


def test_a_shared_cache_is_left_alone(project, tmp_path):
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    with pytest.raises(SweepError, match="lies outside the project"):
        free(project, keep_top=1)
