"""Projects that are not the top folder of an ordinary Git repository."""

import pytest
from stub import Stub

from fieldguide.sweeps.experiments import read_trials

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
    for one, sweep, epochs in ((top, "same", 24), (birds, "birds.same", 12)):
        trials = read_trials(one.folder, sweep)
        assert [trial.number for trial in trials] == [0, 1, 2]
        assert {trial.params["train.epochs"] for trial in trials} == {epochs}
        assert any(trial.pruned for trial in trials)
        assert "search of 3 configurations, maximize val/acc; 3 trials have" in one.sweep(
            "run", files[one]
        )
    top.git("checkout", "--quiet", ".")
    best = birds.sweep("best", files[birds], "--apply")
    name = best.split("\n", 1)[0]
    ref = birds.git("for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}").strip()
    assert params.read_text() == birds.git("show", f"{ref}:./params.yaml")
    assert top.git("status", "--porcelain", "params.yaml", "metrics", "dvc.lock") == ""
    listed = birds.sweep("list", files[birds])
    assert listed.count("birds.same-") == 3
    assert listed.count(" same-") == 0
    assert "plots/sweep.html" in birds.sweep("report", files[birds])
    assert "birds.same-" in (birds.folder / "plots/sweep.html").read_text()
    assert "freed" in birds.sweep("gc", files[birds], "--keep-top", "1")
    # A change outside of the project would be lost too.
    (top.folder / "stages/train.py").write_text("mine")
    refused = birds.sweep("best", files[birds], "--apply", status=1)
    assert "stages/train.py: changed and not committed" in refused


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Stub(tmp_path_factory.mktemp("original") / "project")


@pytest.mark.parametrize("kind", ["worktree", "submodule", "detached"])
def test_a_sweep_runs_in_every_kind_of_checkout(original, tmp_path, kind):
    if kind == "worktree":
        project = original.at(tmp_path / "worktree")
        original.git("worktree", "add", "--quiet", "--detach", str(project.folder))
    elif kind == "submodule":
        Stub.make_repository(tmp_path)
        submodule = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
        original.at(tmp_path).git(*submodule, str(original.folder), "part")
        project = original.at(tmp_path / "part")
    else:
        project = original.at(tmp_path / "clone")
        original.git("clone", "--quiet", str(original.folder), str(project.folder))
        project.git("checkout", "--quiet", "--detach")
    Stub.make_repository(project.folder)  # again, for the user's name
    file = project.write_sweep(kind, run_cap=2)
    output = project.sweep("run", file)
    assert "2 done, 0 pruned, 0 failed, 2 configurations" in output
    assert project.sweep("list", file).count(f"{kind}-000") == 2
    assert [trial.number for trial in read_trials(project.folder, kind)] == [0, 1]


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
