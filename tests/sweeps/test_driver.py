import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from stub import ROOT, Stub, stages_of, wait_for

from fieldguide.core.errors import SweepError
from fieldguide.core.params import load_params
from fieldguide.sweeps.driver import run_sweep, take_snapshot
from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.local import gpus_of, threads
from fieldguide.sweeps.pool import Ended
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.slot import Slot, how_it_failed
from fieldguide.sweeps.sweep_file import load_sweep

# The warnings are of libraries that DVC uses.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COMMAND = [sys.executable, "-m", "fieldguide.cli", "sweep", "run"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "project"
    folder.mkdir()
    return Stub(folder)


def workers_of(folder):
    """Return DVC's processes, by the notes of the slots."""
    found = []
    for note in (folder / ".fieldguide/sweeps").glob("*/slot-*.json"):
        try:
            found.append(psutil.Process(json.loads(note.read_text())["pid"]))
        except (psutil.Error, OSError):  # it has just ended, or its note is gone
            continue
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
        return gpus_of(base, {f"train.{key}": value for key, value in changes.items()})

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f")
    assert gpus(accelerator="auto") == gpus(accelerator="gpu") == ["3", "GPU-8f"]
    assert gpus(accelerator="cpu") == []
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
    assert "0 running, 3 done, 0 pruned, 0 failed, 3 configurations; best" in output
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
    assert "3 trials have ended before" in capsys.readouterr().out
    assert sorted(project.noted("ended"))[-3:] == sorted(names)  # none was trained again
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


def test_junk_in_place_of_a_slot_costs_the_project_nothing(project):
    """Without a .git of its own, Git would take the slot for a folder of the project."""
    file = project.write_sweep("junk", run_cap=3)
    folder = project.folder / ".fieldguide/sweeps/junk"
    (folder / "slot-0/models").mkdir(parents=True)
    (folder / "slot-0.json").write_text("{")
    (folder / "slot-1").write_text("not a folder")
    params = project.folder / "params.yaml"
    before, experiments = params.read_text(), project.experiments()
    try:
        params.write_text(f"{before}# unsaved\n")
        assert project.search(file)
        assert params.read_text() == f"{before}# unsaved\n"
    finally:
        params.write_text(before)
    assert set(experiments) < set(project.experiments())
    assert len(project.experiments()) == len(experiments) + 3


def test_a_damaged_slot_is_made_again(project):
    file = project.write_sweep("locked", run_cap=1)
    folder = project.folder / ".fieldguide/sweeps/locked/slot-0"
    Slot(project.folder, folder, take_snapshot(project.folder, "locked"))._make()
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
    assert "2 done, 0 pruned, 1 failed, 3 configurations" in output
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


def test_trials_that_cannot_win_are_pruned(project, capsys):
    early = {"type": "hyperband", "min_iter": 1, "eta": 2, "s": 1}
    file = project.write_sweep("pruning", run_cap=6, early_terminate=early)
    assert project.search(file, jobs=1)
    trials = sorted(read_trials(project.folder, "pruning"), key=lambda trial: trial.number)
    scores = [trial.metrics["best.val_acc"] for trial in trials]
    # A trial goes on if it is in the better half, rounded down but one, of those before and it.
    expected = [
        score not in sorted(scores[: n + 1], reverse=True)[: max(1, (n + 1) // 2)]
        for n, score in enumerate(scores)
    ]
    assert [trial.pruned for trial in trials] == expected
    assert True in expected
    assert f"{expected.count(False)} done, {expected.count(True)} pruned" in capsys.readouterr().out


def run_in_slot(project, slot, name, *, go_on):
    """Run a trial until DVC has ended, and leave it there, as if the driver were killed then."""
    slot.run(name, {"train.seed": 7}, [1], env={})
    wait_for(lambda: list(slot.new_epochs()) or not slot.is_running)
    slot.answer(1, go_on=go_on)
    wait_for(lambda: not slot.is_running)


def test_a_stopped_training_never_leaves_its_slot_and_a_whole_one_does(project):
    start = take_snapshot(project.folder, "slots")
    folder = project.folder / ".fieldguide/sweeps/slots"
    cache = project.folder / ".dvc/cache"
    before = set((cache / "runs").glob("*/*/*"))

    def new_runs():
        return set((cache / "runs").glob("*/*/*")) - before

    slot = Slot(project.folder, folder / "slot-0", start)
    run_in_slot(project, slot, "slots-0000_s=7", go_on=False)
    assert new_runs() == set()
    # The next driver ends what is left, and another worker runs the same params.
    Slot(project.folder, folder / "slot-0", start).kill()
    assert new_runs() == set()
    other = Slot(project.folder, folder / "slot-1", start)
    run_in_slot(project, other, "slots-0001_s=7", go_on=True)
    assert not other.end().trial.pruned
    assert len(new_runs()) == 1
    # The first slot has not taken its own run for the whole training.
    assert slot.end().trial.pruned
    run_in_slot(project, slot, "slots-0002_s=7", go_on=False)
    assert not slot.end().trial.pruned  # restored: it asked nothing
    assert len(new_runs()) == 1


def test_best_is_applied_and_only_then_evaluated(project):
    file = project.write_sweep("winner", run_cap=2)
    assert project.search(file)
    before = len(project.noted("ended"))
    try:
        output = project.sweep("best", file, "--apply")
        name = output.split("\n", 1)[0]
        applied = (project.folder / "params.yaml").read_text()
        assert applied == project.git("show", f"{ref_of(project, name)}:params.yaml")
        assert len(project.noted("ended")) == before  # trained already
        assert (project.folder / "metrics/test.json").read_text() == "{}"
        assert project.dvc("status") == ("Data and pipelines are up to date.\n")
        listed = project.sweep("list", file)
        assert listed.index(name) < listed.index("winner-", listed.index(name) + 1)
    finally:
        project.git("checkout", "--quiet", ".")


def test_best_does_not_replace_uncommitted_changes(project):
    file = project.write_sweep("careful", run_cap=1)
    assert project.search(file)
    stage = project.folder / "stages/train.py"
    before = stage.read_text()
    stage.write_text(f"{before}# mine\n")
    try:
        output = project.sweep("best", file, "--apply", status=1)
        assert "stages/train.py: changed and not committed, and careful-0000" in output
        assert stage.read_text().endswith("# mine\n")
    finally:
        stage.write_text(before)


def test_the_exit_status_is_read_from_dvcs_line_alone(tmp_path):
    log = tmp_path / "log"
    error = "ERROR: failed to reproduce 'train': failed to run: python stages/train.py, exited with"
    log.write_text("\n--- start ---\nrank 1 exited with 1\n")
    assert how_it_failed(log) == (None, "rank 1 exited with 1")
    log.write_text(f"\n--- start ---\nold\n{error} 1\n\n--- start ---\nnew\n{error} -9\n")
    assert how_it_failed(log) == (-9, "new")
    log.write_text(f"\n--- start ---\nold\n{error} 1\n\n--- start ---\n")
    assert how_it_failed(log) == (None, "its log is empty")


def test_two_drivers_cannot_run_one_sweep_and_ctrl_c_loses_nothing(project):
    file = project.write_sweep("twice", run_cap=3)
    slow = project.env | {"STUB_SECONDS": "300"}
    first = project.start(*COMMAND, file, env=slow)
    try:
        wait_for(lambda: stages_of(project.folder))
        output = project.sweep("run", file, status=1)
        assert output == f"fieldguide: {file}: another process runs this sweep already\n"
        assert "another process" in project.sweep("gc", file, "--keep-top", "1", status=1)
    finally:
        first.send_signal(signal.SIGINT)
        output, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Stopped; run the same command again to go on" in output
    assert "Traceback" not in output
    wait_for(lambda: not stages_of(project.folder) + workers_of(project.folder))
    assert project.search(file)
    assert len([name for name in project.experiments() if name.startswith("twice-")]) == 3


def test_experiments_that_the_record_does_not_know_are_refused(project):
    file = project.write_sweep("taken", run_cap=1)
    assert project.search(file)
    (project.folder / "sweeps/taken.yaml.study").unlink()
    with pytest.raises(
        SweepError, match=r"1 experiments of a sweep 'taken', as taken-0000.* are no"
    ):
        project.search(file)


def test_a_broken_pipeline_stops_the_sweep_with_its_log(project):
    (project.folder / "dvc.yaml").rename(project.folder / "kept")
    (project.folder / "dvc.yaml").write_text("stages: {train: {cmd: 'true', deps: [gone.py]}}")
    try:
        with pytest.raises(SweepError, match=r"broken-0000.* was started 6 times .*gone\.py"):
            project.search(project.write_sweep("broken"), jobs=1)
    finally:
        (project.folder / "kept").replace(project.folder / "dvc.yaml")


class FailingNode:
    """A pool with one node, which fails every trial."""

    def __init__(self, folder, start):
        self.name, self.stopped = None, 0

    def recover(self, wanted):
        return set()

    def expect(self, most):
        pass

    def room(self):
        return int(self.name is None)

    def start(self, planned, rungs):
        self.name = planned.name

    def wait(self):
        name, self.name = self.name, None
        yield Ended(name, message="the disk is full", node_failed=True)

    def stop(self):
        self.stopped += 1


def test_a_sweep_stops_if_every_node_fails_and_blames_no_trial(project):
    base = load_params(project.folder / "params.yaml")
    sweep = load_sweep(project.folder / project.write_sweep("nowhere"), base)
    with pytest.raises(SweepError, match=r"nowhere-0000.*no node .* 6 times .*the disk is full"):
        run_sweep(project.folder, sweep, base, FailingNode)
    assert [trial.number for trial in Record(sweep, base).waiting()] == [0]


@pytest.mark.soak
def test_kills_of_trials_workers_and_driver_lose_nothing_and_repeat_nothing(tmp_path):
    """200 trials; 21 times a process of the sweep, drawn at random, gets kill -9."""
    trials, kills = 200, ["driver", "worker", "trial"] * 7
    project = Stub(tmp_path)
    file = project.write_sweep(run_cap=trials)
    rng = random.Random(0)
    rng.shuffle(kills)

    def start():
        return subprocess.Popen(
            [*COMMAND, file, "-j", "4"],
            cwd=project.folder,
            env=project.env,
            stdout=subprocess.DEVNULL,
        )

    def hit(processes_of):
        """Kill one of them; return False if there is none, or it has just ended."""
        try:
            rng.choice(processes_of(tmp_path)).kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        return True

    driver = start()
    for number, kind in enumerate(kills):
        # Spread over the whole sweep, at random moments.
        wanted = trials * number // (len(kills) + 1)
        wait_for(lambda: len(project.noted("ended")) > wanted, seconds=300)  # noqa: B023
        time.sleep(rng.uniform(0, 1))
        if kind == "driver":
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            driver = start()
        else:
            wait_for(lambda: hit(workers_of if kind == "worker" else stages_of))  # noqa: B023
    assert driver.wait(timeout=400) == 0
    names = [name for name in project.experiments() if name.startswith("search-")]
    assert sorted(int(name.split("_")[0][-4:]) for name in names) == list(range(trials))
    record = (project.folder / "sweeps/search.yaml.study").read_text()
    assert record.count('{"seed-0":') == trials  # each has ended once
    # A training is repeated only if a kill falls between its end and its record.
    ended = [name for name in project.noted("ended") if name != "main"]
    assert set(ended) == set(names)
    assert len(ended) <= trials + len(kills)
