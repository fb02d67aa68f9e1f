"""A worker and its process that runs trials, without a cluster."""

import os
import sys
import time
from dataclasses import asdict

import pytest
from stub import Stub, stages_of, wait_for

from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.node import Job
from fieldguide.sweeps.worker import Worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose remotes are folders."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "project").mkdir()
    made = Stub(folder / "project")
    made.remote = folder / "remote.git"
    made.run("git", "init", "--bare", "--quiet", str(made.remote))
    made.dvc("remote", "add", "--default", "storage", str(folder / "storage"))
    made.git("commit", "--quiet", "--all", "--message", "remote")
    made.git("push", "--quiet", str(made.remote), "HEAD:refs/fieldguide/test")
    made.dvc("push", "--quiet")
    return made


@pytest.fixture
def work(project, tmp_path, monkeypatch):
    """Makes workers of one node, whose folder is the test's; their processes end with the test."""
    monkeypatch.setenv("FIELDGUIDE_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    workers = []

    def make(ref="refs/fieldguide/test", **env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        baseline = project.git("rev-parse", "HEAD").strip()
        worker = Worker(asdict(Job(str(project.remote), ref, baseline, "", threads=1)))
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        if worker._node is not None:
            worker._node.stdin.close()
            worker._node.wait()


def run(worker, name, **overrides):
    """Run a trial and return its last event."""
    first = worker.run(name, overrides, [])
    return first[-1] if first and first[-1]["event"] == "ended" else last_event(worker, name)


def last_event(worker, name):
    end, seen = time.monotonic() + 60, 0
    while time.monotonic() < end:
        for event in worker.events(name, seen):
            seen += 1
            if event["event"] == "ended":
                return event
    raise AssertionError("it never ended")


def test_a_trial_is_published_once_by_whoever_is_first(project, work, tmp_path, monkeypatch):
    worker = work()
    first = {"train.learning_rate": 0.001}
    assert run(worker, "sweep-0000_lr=0.001", **first)["status"] == 0
    ref = "refs/exps/*/sweep-0000_lr=0.001"
    before = project.git("ls-remote", str(project.remote), ref)
    assert before.count("\n") == 1
    # Another node gets the same trial, because the driver took this node for dead.
    monkeypatch.setenv("FIELDGUIDE_NODE_FOLDER", str(tmp_path / "other"))
    assert run(work(), "sweep-0000_lr=0.001", **first)["status"] == 0
    assert project.git("ls-remote", str(project.remote), ref) == before
    # The second trial of a worker, in the same clone.
    assert run(worker, "sweep-0001_lr=0.002", **{"train.learning_rate": 0.002})["status"] == 0
    refs = "refs/exps/*:refs/exps/*"
    project.git("fetch", "--quiet", str(project.remote), refs)
    rates = {t.number: t.params["train.learning_rate"] for t in read_trials(project.folder)}
    assert rates == {0: 0.001, 1: 0.002}


def test_a_trial_whose_params_fail_sends_its_log(work):
    event = run(work(), "sweep-0002_o=sgd", **{"train.optimizer": "sgd"})
    assert event["status"] == 1
    assert event["message"] == "the settings are at fault"
    assert "the settings are at fault\n" in event["log"]


def test_a_trial_ends_when_its_worker_is_killed(work, tmp_path):
    worker = work(STUB_SECONDS="300")
    worker.run("sweep-0003_x=1", {"train.seed": 3}, [])
    wait_for(lambda: stages_of(tmp_path))
    worker._node.stdin.close()  # as if the worker's own process were killed
    worker._node.wait(30)
    assert stages_of(tmp_path) == []
    event = last_event(worker, "sweep-0003_x=1")
    assert event["status"] is None
    assert event["message"].startswith("the process that ran it on its node ended with 0")


def test_a_killed_process_is_replaced_and_its_stage_is_ended(work, tmp_path):
    worker = work(STUB_SECONDS="300")
    worker.run("sweep-0004_x=1", {"train.seed": 4}, [])
    wait_for(lambda: stages_of(tmp_path))
    left = stages_of(tmp_path)
    worker._node.kill()
    event = last_event(worker, "sweep-0004_x=1")
    assert event["status"] is None
    assert "ended with -9" in event["message"]
    os.environ["STUB_SECONDS"] = "0"
    assert run(worker, "sweep-0004_x=1", **{"train.seed": 4})["status"] == 0
    assert not any(process.is_running() for process in left)


def test_a_commit_that_cannot_be_fetched_is_reported_and_no_fault_of_the_trial(work):
    event = run(work(ref="refs/fieldguide/gone"), "sweep-0005_x=1")
    assert event["status"] is None
    assert event["node_failed"]
    assert "couldn't find remote ref refs/fieldguide/gone" in event["message"]


def test_a_trial_that_is_started_again_does_not_end_as_the_first_time(work, monkeypatch):
    worker = work()
    name = "sweep-0006_o=sgd"
    assert run(worker, name, **{"train.optimizer": "sgd"})["status"] == 1
    assert worker.events(name, 0)[-1]["status"] == 1  # until the next trial
    first = worker.run(name, {"train.seed": 6}, [])
    assert [event for event in first if event["status"] == 1] == []
    assert (first[-1] if first else last_event(worker, name))["status"] == 0


def test_a_process_that_cannot_be_started_is_an_error_and_no_endless_wait(work, monkeypatch):
    worker = work()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        worker.run("sweep-0007_x=1", {}, [])


def test_a_last_line_that_was_cut_and_odd_bytes_end_the_trial(work, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nprintf '{\"event\": \"ep'\nprintf 'caf\\351\\n' >&2\nexit 7\n")
    program.chmod(0o755)
    worker = work()
    monkeypatch.setattr(sys, "executable", str(program))
    event = run(worker, "sweep-0008_x=1")
    assert (event["name"], event["status"]) == ("sweep-0008_x=1", None)
    assert event["message"].endswith("ended with 7 (caf\ufffd)")
