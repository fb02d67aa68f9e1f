import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future

import psutil
import pytest
from stub import ROOT, Stub, processes_of, wait_for

from fieldguide.core.errors import SweepError
from fieldguide.core.params import load_params
from fieldguide.sweeps.driver import run_sweep
from fieldguide.sweeps.local import gpus_of, threads
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.sweep_file import load_sweep
from fieldguide.sweeps.worker import Outcome, how_it_failed

# The warnings are of libraries that DVC uses.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COMMAND = [sys.executable, "-m", "fieldguide.cli", "sweep", "run"]
THREE_RUNGS = {"type": "hyperband", "min_iter": 2, "eta": 2, "s": 2}  # epochs 2, 4 and the last


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "project"
    folder.mkdir()
    return Stub(folder)


def record_of(project, file):
    base = load_params(project.folder / "params.yaml")
    return Record(load_sweep(project.folder / file, base), base, writes=False)


def of_kind(folder, kind):
    """Return the processes of a kind in the clones: guard, dvc or stages/train.py."""
    found = []
    for process in processes_of(folder):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        is_guard = "results.guard" in command
        if (kind == "guard" and is_guard) or (not is_guard and kind in command):
            found.append(process)
    return found


def test_each_trial_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads(jobs)["OMP_NUM_THREADS"] for jobs in (1, 2, 3, 8, 9)] == list("84211")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the user wants no more
    assert [threads(jobs)["OMP_NUM_THREADS"] for jobs in (1, 4, 8)] == list("221")


def test_each_worker_has_a_gpu_of_its_own_where_there_are_several(monkeypatch):
    base = load_params(ROOT / "params.yaml")

    def gpus(**changes):
        fixed = {f"train.{key}": value for key, value in changes.items()}
        return gpus_of(base, {"compute.portable": False, **fixed})

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f")
    assert gpus(accelerator="auto") == gpus(accelerator="gpu") == ["3", "GPU-8f"]
    assert gpus(accelerator="cpu") == []
    assert gpus_of(base, {}) == []  # portable
    assert gpus(devices=2) == []  # one trial takes several
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


def test_trials_are_experiments_and_leave_the_workspace_alone(project, capsys):
    (project.folder / "notes.txt").write_text("untracked")
    file = project.write_sweep("plain", run_cap=3)
    assert project.search(file)
    output = capsys.readouterr().out
    names = [name for name in project.experiments() if name.startswith("plain-")]
    assert [name.split("_")[0] for name in sorted(names)] == [f"plain-000{k}" for k in range(3)]
    assert (
        "3 of 3 configurations begun; trainings: 3 whole, 0 stopped at a rung, 0 failed; best"
        in output
    )
    assert project.git("status", "--porcelain", "--untracked-files=no") == ""
    shown = json.loads(project.dvc("exp", "show", "--json", "--no-pager"))
    baseline = next(one for one in shown if one["name"] != "workspace" and one.get("experiments"))
    found = {one["name"]: one["revs"][0]["data"] for one in baseline["experiments"]}
    for name in names:
        data = found[name]
        params = data["params"]["params.yaml"]["data"]
        # The name says what was trained.
        assert f"a={params['model']['activation']}" in name
        assert f"lr={params['train']['learning_rate']:.3g}" in name
        assert "best" in data["metrics"]["metrics/train/metrics.json"]["data"]
        # The baseline's test scores are not the trial's.
        assert "metrics/test.json" not in {k for k, v in data["metrics"].items() if v.get("data")}
    assert project.search(file)
    assert "3 runs have ended before" in capsys.readouterr().out
    assert sorted(project.noted("ended")) == ["main 24", *(f"{name} 24" for name in sorted(names))]
    (project.folder / "notes.txt").unlink()


def test_a_fixed_value_may_be_allowed_only_with_a_searched_one(project):
    space = {"model.name": {"values": ["resnet18"]}, "model.weights": {"value": "pretrained"}}
    assert project.search(project.write_sweep("pair", method="grid", parameters=space))
    (name,) = [name for name in project.experiments() if name.startswith("pair-")]
    assert "weights: pretrained" in project.git("show", f"{ref_of(project, name)}:params.yaml")


def test_uncommitted_changes_are_part_of_every_trial(project):
    params = project.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("epochs: 24", "epochs: 11"))
    assert params.read_text() != before
    try:
        project.search(project.write_sweep("dirty", run_cap=1))
        (name,) = [name for name in project.experiments() if name.startswith("dirty-")]
        assert "epochs: 11" in project.git("show", f"{ref_of(project, name)}:params.yaml")
    finally:
        params.write_text(before)


def test_a_new_file_that_is_staged_is_part_of_every_trial(project):
    stage = project.folder / "stages/train.py"
    before = stage.read_text()
    (project.folder / "stages/extra.py").write_text("X = 1\n")
    stage.write_text(f"from extra import X\n{before}")
    project.git("add", "stages/extra.py")
    try:
        assert project.search(project.write_sweep("staged", run_cap=2), jobs=1)
    finally:
        project.git("reset", "--quiet", "--hard")


def test_junk_in_place_of_a_clone_costs_the_project_nothing(project):
    """Without a .git of its own, Git would take the clone for a folder of the project."""
    file = project.write_sweep("junk", run_cap=3)
    folder = project.folder / ".fieldguide/sweeps/junk"
    (folder / "clone-0/models").mkdir(parents=True)
    (folder / "clone-0/.dvc").mkdir()
    (folder / "clone-0/.dvc/config.local").touch()
    (folder / "clone-1").write_text("not a folder")
    params = project.folder / "params.yaml"
    before, experiments = params.read_text(), project.experiments()
    try:
        params.write_text(f"{before}# unsaved\n")
        assert project.search(file)
        assert params.read_text() == f"{before}# unsaved\n"
    finally:
        params.write_text(before)
    assert len(project.experiments()) == len(experiments) + 3


def test_a_damaged_clone_is_made_again(project):
    file = project.write_sweep("locked", run_cap=1)
    folder = project.folder / ".fieldguide/sweeps/locked/clone-0"
    subprocess.run(["git", "clone", "--quiet", project.folder, folder], check=True)
    (folder / ".dvc/config.local").touch()
    (folder / ".git/index.lock").touch()
    assert project.search(file)


def ref_of(project, name):
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/exps/").split()
    return next(ref for ref in refs if ref.endswith(f"/{name}"))


def test_a_trial_whose_params_fail_is_recorded_and_not_tried_again(project, capsys):
    space = {"optimizer": {"values": ["sgd", "adam", "nadam"]}}
    file = project.write_sweep("faulty", method="grid", run_cap=None, parameters=space)
    assert not project.search(file)
    output = capsys.readouterr().out
    assert "trainings: 2 whole, 0 stopped at a rung, 1 failed" in output
    assert "failed: faulty-0000_o=sgd: the settings are at fault" in output
    (log,) = (project.folder / ".fieldguide/sweeps/faulty/logs").glob("*o=sgd.log")
    assert "exited with 1" in log.read_text()
    assert str(log) in output
    began = len(project.noted("began"))
    assert "1 failed" in project.sweep("run", file, status=1)  # told again, and not tried again
    assert len(project.noted("began")) == began


def test_seeds(project):
    file = project.write_sweep("seeded", run_cap=2, seeds=3)
    assert project.search(file)
    names = sorted(name for name in project.experiments() if name.startswith("seeded-"))
    assert [name.rsplit("_", 1)[1] for name in names] == ["s0", "s1", "s2"] * 2
    for name in names:
        params = project.git("show", f"{ref_of(project, name)}:params.yaml")
        assert f"seed: {name[-1]}" in params.split("train:")[1]
    assert "over 3 seeds" in project.sweep("best", file)


def test_rungs(project, capsys):
    """Eight configurations, two rungs, eta 2, one at a time: the decisions by hand."""
    file = project.write_sweep("rungs", run_cap=8, early_terminate=THREE_RUNGS)
    assert project.search(file, jobs=1)
    record = record_of(project, file)
    score = {one.run.number: one.score for one in record.ended if one.run.stop_after == 2}
    reached = Counter(one.run.stop_after for one in record.ended)
    assert reached[2] == 8
    assert reached[4] >= 4  # half of them
    assert reached[0] >= 2
    # The scores keep their order in every epoch, so that the best must have won.
    best = max(score, key=score.get)
    whole = {one.run.number for one in record.ended if one.run.stop_after == 0}
    assert best in whole
    # Each was trained once: a promoted run goes on after the rung below.
    began = [line for line in project.noted("began") if line.startswith("rungs-")]
    starts = Counter(line.split()[1] for line in began)
    assert starts == {"0": 8, "2": reached[4], "4": reached[0]}
    # The experiment is that of the highest rung, and what it did follows from its params.
    name = record.results_of(best)[0].run.name
    assert "stop_after: 0" in project.git("show", f"{ref_of(project, name)}:params.yaml")
    text = capsys.readouterr().out
    assert f"trainings: {reached[0]} whole, {8 - reached[0]} stopped at a rung, 0 failed" in text
    assert not (project.folder / ".fieldguide/sweeps/rungs/checkpoints").exists()


def test_with_few_checkpoints_a_promoted_run_begins_again_and_ends_alike(project):
    """Falling scores, eta 2: after the eighth, the best four have been promoted."""
    early = {"type": "hyperband", "min_iter": 2, "eta": 2, "s": 1}
    space = {"last_k": {"values": [900, 800, 700, 600, 500, 400, 300, 200]}}
    options = {"method": "grid", "run_cap": None, "parameters": space, "early_terminate": early}
    file = project.write_sweep("few", **options)
    assert project.search(file, jobs=1, checkpoints=1)
    began = [line for line in project.noted("began") if line.startswith("few-")]
    twice = [line for line in began if began.count(line) > 1 or line.endswith(" 2")]
    # 0 and 1 were the best that waited until their turn; 2 and 3 had lost their checkpoints.
    assert sorted({(line[4:8], line[-1]) for line in twice}) == [
        *(("0000", "2"), ("0001", "2"), ("0002", "0"), ("0003", "0")),
    ]
    whole = {one.run.number: one.score for one in record_of(project, file).ended if one.is_whole}
    assert whole == {k: (900 - 100 * k) / 1000 * (1 - 0.5**24) for k in range(4)}


def test_a_run_is_restored_from_the_run_cache_at_every_rung(project):
    for name in ("first", "second"):
        file = project.write_sweep(name, run_cap=4, seed=5, early_terminate=THREE_RUNGS)
        assert project.search(file)
    began = [line.split("-")[0] for line in project.noted("began")]
    assert began.count("first") >= 7
    assert began.count("second") == 0


def test_best_is_applied_and_only_then_evaluated(project):
    file = project.write_sweep("winner", run_cap=2)
    assert project.search(file)
    before = len(project.noted("ended"))
    params = project.folder / "params.yaml"
    original = params.read_text()
    try:
        # On a later commit, whose files must stay.
        params.write_text(f"{original}# a comment\n")
        (project.folder / "later.txt").write_text("later")
        project.git("add", "later.txt", "params.yaml")
        project.git("commit", "--quiet", "--message", "later")
        output = project.sweep("best", file, "--apply")
        name = output.split("\n", 1)[0]
        trained = project.git("show", f"{ref_of(project, name)}:params.yaml")
        assert params.read_text() == f"{trained}# a comment\n"
        assert "params.yaml: train.learning_rate: 0.002 -> " in output
        assert len(project.noted("ended")) == before  # restored
        assert "trained again" not in output
        assert (project.folder / "metrics/test.json").read_text() == "{}"
        assert project.dvc("status") == ("Data and pipelines are up to date.\n")
        changed = project.git("diff", "--name-only").split()
        assert set(changed) <= {
            *("dvc.lock", "params.yaml", "plots/curves.csv"),
            *("metrics/test.json", "metrics/timing.json", "metrics/train/metrics.json"),
        }
        # Now with other code: trained again, and said.
        stage = project.folder / "stages/train.py"
        stage.write_text(stage.read_text().replace('" after {stop}"', '" later {stop}"'))
        stage.write_text(f'{stage.read_text()}Path("models/classifier/new").write_text("x")\n')
        assert "was trained again, because its code" in project.sweep("best", file, "--apply")
        assert len(project.noted("ended")) == before + 1
    finally:
        project.git("reset", "--quiet", "--hard", "HEAD")
        params.write_text(original)
        project.dvc("repro", "--quiet")
        project.git("commit", "--quiet", "--all", "--message", "as before", "--allow-empty")


def test_only_a_whole_training_is_applied(project):
    """All configurations wait at a rung, as after Ctrl-C."""
    file = project.write_sweep("rung", run_cap=2, early_terminate=THREE_RUNGS)
    base = load_params(project.folder / "params.yaml")
    record = Record(load_sweep(project.folder / file, base), base)
    run = record.next()
    assert run.stop_after == 2
    record.finish(run, score=0.5, epochs=2, seconds=1.0)
    params = (project.folder / "params.yaml").read_text()
    refused = project.sweep("best", file, "--apply", status=1)
    assert "no configuration has been trained to the end; fieldguide sweep run" in refused
    assert (project.folder / "params.yaml").read_text() == params


def test_experiments_that_are_missing_are_named_and_run_again(project, capsys):
    file = project.write_sweep("gone", run_cap=3)
    assert project.search(file)
    names = sorted(name for name in project.experiments() if name.startswith("gone-"))
    project.git("update-ref", "-d", ref_of(project, names[1]))
    listed = project.sweep("list", file)
    assert f"1 of 3 experiments are not in this repository, as {names[1]}" in listed
    assert "dvc exp pull" in listed
    began = len(project.noted("began"))
    capsys.readouterr()
    assert project.search(file)
    assert "missing in this repository: 1 experiment of " in capsys.readouterr().out
    assert sorted(n for n in project.experiments() if n.startswith("gone-")) == names
    assert len(project.noted("began")) == began  # DVC's run cache had it
    assert "not in this repository" not in project.sweep("list", file)


def test_a_sweep_that_began_with_changes_that_are_not_here_is_refused(project, tmp_path):
    params = project.folder / "params.yaml"
    before = params.read_text()
    file = project.write_sweep("afar", run_cap=1)
    try:
        params.write_text(f"{before}# not committed\n")
        assert project.search(file)
    finally:
        params.write_text(before)
    colleague = project.at(tmp_path / "clone")
    project.git("clone", "--quiet", project.folder.as_uri(), str(colleague.folder))
    Stub.make_repository(colleague.folder)
    for name in (file, f"{file}.study"):
        (colleague.folder / name).parent.mkdir(exist_ok=True)
        (colleague.folder / name).write_bytes((project.folder / name).read_bytes())
    refused = colleague.sweep("run", file, status=1)
    assert "the sweep began with commit" in refused
    assert refused.count("\n") == 1
    assert "1 of 1 experiments are not in this repository" in colleague.sweep("list", file)


def test_experiments_of_another_baseline_are_not_taken_for_trials(project):
    file = project.write_sweep("based", run_cap=2)
    assert project.search(file)
    listed = project.sweep("list", file)
    (first, second) = sorted(name for name in project.experiments() if name.startswith("based-"))
    tree = project.git("rev-parse", f"{ref_of(project, second)}^{{tree}}").strip()
    other = project.git("commit-tree", "-m", "other", tree).strip()
    project.git("update-ref", f"refs/exps/{other[:2]}/{other[2:]}/{first}", other)
    assert project.sweep("list", file) == listed
    assert "2 done" not in listed
    project.git("update-ref", "-d", f"refs/exps/{other[:2]}/{other[2:]}/{first}")


def test_a_run_cap_below_what_has_ended_ends(project):
    file = project.write_sweep("capped", run_cap=3)
    assert project.search(file)
    assert project.search(project.write_sweep("capped", run_cap=2))


def test_lists_are_searched(project):
    space = {"filters": {"values": [[32, 64, 64, 64, 64], [16, 16, 16, 16, 16]]}}
    file = project.write_sweep("lists", method="grid", run_cap=None, parameters=space)
    assert project.search(file)
    shown = project.sweep("best", file)
    assert "model.filters  [" in shown
    name = shown.split("\n")[0]
    text = project.git("show", f"{ref_of(project, name)}:params.yaml")
    assert "filters:\n  - " in text or "filters: [" in text


def test_the_exit_status_is_read_from_dvcs_line_alone(tmp_path):
    log = tmp_path / "log"
    error = "ERROR: failed to reproduce 'train': failed to run: python stages/train.py, exited with"
    log.write_text("\n--- start ---\nrank 1 exited with 1\n")
    assert how_it_failed(log) == (None, "rank 1 exited with 1")
    log.write_text(f"\n--- start ---\nold\n{error} 1\n\n--- start ---\nnew\n{error} -9\n")
    assert how_it_failed(log) == (-9, "new")
    log.write_text(f"\n--- start ---\nold\n{error} 1\n\n--- start ---\n")
    assert how_it_failed(log) == (None, "its log is empty")
    log.write_text(
        "\n--- start ---\nERROR: unexpected error - cannot write\n\n"
        "Having any troubles? Hit us up at https://dvc.org/support\n"
    )
    assert how_it_failed(log) == (None, "unexpected error - cannot write")


def test_two_drivers_cannot_run_one_sweep_and_ctrl_c_loses_nothing(project):
    file = project.write_sweep("twice", run_cap=3)
    slow = project.env | {"STUB_SECONDS": "300"}
    first = project.start(*COMMAND, file, env=slow)
    try:
        wait_for(lambda: of_kind(project.folder, "train.py"))
        output = project.sweep("run", file, status=1)
        assert output == f"fieldguide: {file}: another process runs this sweep already\n"
        assert "another process" in project.sweep("gc", file, "--keep-top", "1", status=1)
    finally:
        first.send_signal(signal.SIGINT)
        output, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Stopped; run the same command again to go on" in output
    assert "Traceback" not in output
    wait_for(lambda: not processes_of(project.folder))
    assert project.search(file)
    assert len([name for name in project.experiments() if name.startswith("twice-")]) == 3


def test_a_broken_pipeline_stops_the_sweep_with_its_log(project):
    (project.folder / "dvc.yaml").rename(project.folder / "kept")
    (project.folder / "dvc.yaml").write_text("stages: {train: {cmd: 'true', deps: [gone.py]}}")
    try:
        with pytest.raises(SweepError, match=r"broken-0000.* was started 6 times .*gone\.py"):
            project.search(project.write_sweep("broken"), jobs=1)
    finally:
        (project.folder / "kept").replace(project.folder / "dvc.yaml")


class FailingNode:
    """A pool with one node, which fails every run."""

    def __init__(self, folder, start):
        pass

    def room(self):
        return 1

    def start(self, run, checkpoints):
        future = Future()
        future.set_result(Outcome(message="the disk is full", node_failed=True))
        return future

    def stop(self):
        pass


def test_a_sweep_stops_if_every_node_fails_and_blames_no_trial(project):
    base = load_params(project.folder / "params.yaml")
    sweep = load_sweep(project.folder / project.write_sweep("nowhere"), base)
    with pytest.raises(SweepError, match=r"nowhere-0000.* started 6 times .*the disk is full"):
        run_sweep(project.folder, sweep, base, FailingNode)
    assert Record(sweep, base).next().number == 0


@pytest.mark.parametrize("victim", ["driver", "guard", "dvc", "train.py"])
def test_a_kill_leaves_no_process_and_the_sweep_goes_on(project, victim):
    file = project.write_sweep(f"kill-{victim[:3]}", run_cap=1)
    driver = project.start(*COMMAND, file, env=project.env | {"STUB_SECONDS": "300"})
    try:
        wait_for(lambda: of_kind(project.folder, "train.py"))
        if victim == "driver":
            driver.kill()
            wait_for(lambda: not processes_of(project.folder))
        else:
            of_kind(project.folder, victim)[0].kill()
            wait_for(lambda: len(of_kind(project.folder, "guard")) == 2)  # parent and child
            driver.send_signal(signal.SIGTERM)
    finally:
        driver.communicate(timeout=60)
    assert project.search(file)
    assert not processes_of(project.folder)


@pytest.mark.soak
def test_kills_of_driver_dvc_and_stage_lose_nothing_and_repeat_nothing(tmp_path):
    """200 configurations; 21 times a process of the sweep, drawn at random, gets kill -9."""
    planned, kills = 200, ["driver", "dvc", "train.py"] * 7
    project = Stub(tmp_path)
    early = {"type": "hyperband", "min_iter": 2, "eta": 3, "s": 2}
    file = project.write_sweep(run_cap=planned, early_terminate=early)
    rng = random.Random(0)
    rng.shuffle(kills)

    def start():
        return subprocess.Popen(
            [*COMMAND, file, "-j", "4"],
            cwd=project.folder,
            env=project.env | {"STUB_SECONDS": "4"},
            stdout=subprocess.DEVNULL,
        )

    def hit(kind):
        """Kill one of them; return False if there is none, or it has just ended."""
        try:
            rng.choice(of_kind(tmp_path, kind)).kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        return True

    driver = start()
    for number, kind in enumerate(kills):
        # Spread over the whole sweep, at random moments.
        wanted = planned * number // (len(kills) + 1)
        wait_for(lambda: len(project.noted("ended")) > wanted)  # noqa: B023
        time.sleep(rng.uniform(0, 1))
        if kind == "driver":
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            driver = start()
        else:
            wait_for(lambda: hit(kind))  # noqa: B023
    assert driver.wait(timeout=600) == 0
    record = record_of(project, file)
    runs = [one.run.key for one in record.ended]
    assert sorted({number for number, *_ in runs}) == list(range(planned))
    assert len(runs) == len(set(runs))  # each has ended once
    names = {one.run.name for one in record.ended}
    assert {name for name in project.experiments() if name.startswith("search-")} == names
    # A training begins twice after the same epoch only where a kill came between.
    began = Counter(line for line in project.noted("began") if not line.startswith("main"))
    twice = sum(count - 1 for count in began.values())
    assert twice <= len(kills) * 4  # a killed driver takes four with it
    # A training whose end a kill has kept from the record is restored from DVC's run cache.
    ended = Counter(line for line in project.noted("ended") if not line.startswith("main"))
    assert sum(count - 1 for count in ended.values()) <= len(kills)
