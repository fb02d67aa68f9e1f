"""Sweeps of projects in every kind of Git checkout."""

import pytest
import yaml
from stub import Stub

# The warnings are of libraries that DVC uses.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_two_projects_of_one_repository_sweep_side_by_side(tmp_path):
    top, birds = Stub(tmp_path), Stub(tmp_path / "birds")
    early = {"type": "hyperband", "min_iter": 1, "eta": 2, "s": 1}
    files = {one: one.write_sweep("same", run_cap=3, early_terminate=early) for one in (top, birds)}
    params = birds.folder / "params.yaml"  # not committed, and part of every trial
    params.write_text(params.read_text().replace("epochs: 24", "epochs: 12"))
    for one in (birds, top):
        assert one.search(files[one], jobs=1)
    names = [name.split("_")[0] for name in sorted(top.experiments())]
    assert names == [f"{sweep}-000{k}" for sweep in ("birds.same", "same") for k in range(3)]
    for one, epochs in ((top, 24), (birds, 12)):
        assert max(int(line.split(" ")[1]) for line in one.noted("ended")[1:]) == epochs
        again = one.sweep("run", files[one])
        assert "search of 3 configurations, maximize val/acc" in again
        assert "runs have ended before" in again
    top.git("checkout", "--quiet", ".")
    best = birds.sweep("best", files[birds], "--apply")
    name = best.split("\n", 1)[0]
    ref = birds.git("for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}").strip()
    assert yaml.safe_load(params.read_text()) == yaml.safe_load(
        birds.git("show", f"{ref}:./params.yaml")
    )
    assert top.git("status", "--porcelain", "params.yaml", "metrics", "dvc.lock") == ""
    listed = birds.sweep("list", files[birds])
    assert listed.count("birds.same-") == 3
    assert listed.count(" same-") == 0
    assert "plots/sweep.html" in birds.sweep("report", files[birds])
    assert "birds.same-" in (birds.folder / "plots/sweep.html").read_text()
    assert "freed" in birds.sweep("gc", files[birds], "--keep-top", "1")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Stub(tmp_path_factory.mktemp("original") / "project")


@pytest.mark.parametrize("kind", ["worktree", "submodule", "detached", "shallow"])
def test_a_sweep_runs_in_every_kind_of_checkout(original, tmp_path, kind):
    if kind == "worktree":
        project = original.at(tmp_path / "worktree")
        original.git("worktree", "add", "--quiet", "--detach", str(project.folder))
    elif kind == "submodule":
        Stub.make_repository(tmp_path)
        submodule = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
        original.at(tmp_path).git(*submodule, str(original.folder), "part")
        project = original.at(tmp_path / "part")
    elif kind == "shallow":
        project = original.at(tmp_path / "shallow")
        original.git("commit", "--quiet", "--allow-empty", "--message", "second")
        source = original.folder.as_uri()
        original.git("clone", "--quiet", "--depth", "1", source, str(project.folder))
    else:
        project = original.at(tmp_path / "clone")
        original.git("clone", "--quiet", str(original.folder), str(project.folder))
        project.git("checkout", "--quiet", "--detach")
    Stub.make_repository(project.folder)  # again, for the user's name
    params = project.folder / "params.yaml"  # not committed, so that trials begin at a snapshot
    params.write_text(params.read_text().replace("epochs: 24", "epochs: 12"))
    file = project.write_sweep(kind, run_cap=2)
    output = project.sweep("run", file)
    assert "2 of 2 configurations begun; trainings: 2 whole" in output
    assert project.sweep("list", file).count(f"{kind}-000") == 2


def test_another_folder_is_refused_with_the_cause(original, tmp_path):
    file = original.write_sweep("elsewhere")
    inner = original.at(original.folder / "sweeps")
    (inner.folder / "params.yaml").write_text((original.folder / "params.yaml").read_text())
    try:
        refused = inner.sweep("run", "elsewhere.yaml", status=1)
        assert "has no folder .dvc; allowed: a DVC project" in refused
    finally:
        (inner.folder / "params.yaml").unlink()
    outside = original.at(tmp_path)
    for name in ("params.yaml", file):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((original.folder / name).read_text())
    assert "not a git repository" in outside.sweep("run", file, status=1)


def test_a_submodule_that_no_stage_reads_is_no_obstacle(original, tmp_path):
    project = original.at(tmp_path / "with-docs")
    original.git("clone", "--quiet", str(original.folder), str(project.folder))
    Stub.make_repository(project.folder)
    Stub.make_repository(tmp_path / "docs")
    docs = original.at(tmp_path / "docs")
    docs.git("commit", "--quiet", "--allow-empty", "--message", "docs")
    submodule = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    project.git(*submodule, str(docs.folder), "docs")
    project.git("commit", "--quiet", "--message", "with docs")
    assert "trainings: 1 whole" in project.sweep("run", project.write_sweep("docs", run_cap=1))
    # A dependency in a submodule would be missing in every clone.
    text = (project.folder / "dvc.yaml").read_text()
    (project.folder / "docs/settings").write_text("x")
    (project.folder / "dvc.yaml").write_text(
        text.replace("deps: [stages/train.py]", "deps: [stages/train.py, docs/settings]")
    )
    refused = project.sweep("run", project.write_sweep("deps", run_cap=1), status=1)
    assert refused.count("\n") == 1
    assert "a stage depends on docs/settings, which lies in the submodule docs" in refused


@pytest.mark.parametrize("where", ["repository", "environment"])
def test_a_git_identity_of_the_repository_or_environment_is_handed_over(original, tmp_path, where):
    project = original.at(tmp_path / "clone")
    original.git("clone", "--quiet", str(original.folder), str(project.folder))
    if where == "repository":
        Stub.make_repository(project.folder)
    else:
        names = {"NAME": "Ann Other", "EMAIL": "ann@example.com"}
        project.env = original.env | {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in names.items()
        }
    file = project.write_sweep("who", run_cap=1)
    assert "trainings: 1 whole" in project.sweep("run", file)
    (name,) = (one for one in project.experiments() if one.startswith("who-"))
    ref = project.git("for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}").strip()
    author = project.git("log", "-1", "--format=%an %ae", ref).strip()
    assert author == (
        "Test test@example.com" if where == "repository" else "Ann Other ann@example.com"
    )


def test_without_a_git_identity_the_sweep_is_refused_at_once(original, tmp_path):
    project = original.at(tmp_path / "clone")
    original.git("clone", "--quiet", str(original.folder), str(project.folder))
    project.git("config", "user.useConfigOnly", "true")
    refused = project.sweep("run", project.write_sweep("nobody", run_cap=1), status=1)
    assert "user.email" in refused or "identity" in refused
    assert "Traceback" not in refused


def test_a_folder_of_another_owner_is_refused_with_gits_cause(original, tmp_path):
    project = original.at(tmp_path / "theirs")
    original.git("clone", "--quiet", str(original.folder), str(project.folder))
    project.env = original.env | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    refused = project.sweep("run", project.write_sweep("theirs", run_cap=1), status=1)
    assert "dubious ownership" in refused
    assert "has no commit" not in refused
    assert "Traceback" not in refused


def test_a_path_with_letters_beyond_ascii(original, tmp_path):
    folder = tmp_path / "Vögel и птицы"
    project = original.at(folder)
    original.git("clone", "--quiet", str(original.folder), str(folder))
    Stub.make_repository(folder)
    local = folder / ".dvc/config.local"
    config = f"[core]\n    remote = near\n['remote \"near\"']\n    url = {folder}/küste\n"
    local.write_text(config, encoding="utf-8")
    file = project.write_sweep("letters", run_cap=1)
    assert "trainings: 1 whole" in project.sweep("run", file)
