"""A sweep on a real Ray cluster, whose nodes share only a Git remote and an S3 bucket.

The nodes are raylets on this machine, each with its own folder for clones and DVC's cache.
"""

import os
import signal
import sys
import time
from dataclasses import replace

import pytest
import yaml
from stub import Stub, processes_of, wait_for

from fieldguide.core.params import load_params
from fieldguide.sweeps.experiments import experiments_of
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.sweep_file import load_sweep

pytestmark = pytest.mark.slow


@pytest.fixture
def team(tmp_path, s3, cluster):
    """A project in a subfolder with a Git and an S3 remote, and a cluster that may use both."""

    class Team:
        def __init__(self):
            bucket = f"sweep-{tmp_path.name.replace('_', '-')}"[:63].rstrip("-").lower()
            self.bucket, url = bucket, s3.bucket(bucket)
            keys = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
            self.cluster = cluster(STUB_SECONDS="0.5", **keys)
            Stub.make_repository(tmp_path / "repository")
            self.project = project = Stub(tmp_path / "repository" / "birds")
            self.remote = tmp_path / "remote.git"
            project.run("git", "init", "--bare", "--quiet", str(self.remote))
            project.git("remote", "add", "origin", str(self.remote))
            project.dvc("remote", "add", "--default", "storage", url)
            project.dvc("remote", "modify", "storage", "endpointurl", s3.endpoint)
            project.dvc("remote", "modify", "storage", "region", s3.region)
            project.git("commit", "--quiet", "--all", "--message", "remote")
            project.git("push", "--quiet", "origin", "HEAD:main")
            path = project.env["PYTHONPATH"]
            project.env |= {**self.cluster.env, "PYTHONPATH": path}

        def start(self, file, *options):
            command = [sys.executable, "-m", "fieldguide.cli", "sweep", "run", file]
            ray = ("--engine", "ray", "--address", self.cluster.address)
            return self.project.start(*command, *ray, *options)

        def wait_for(self, ended, driver):
            """Wait until so many trials have been trained; the first note is the project's own.

            A busy machine may be slow, so only five minutes without a new trial are too long.
            """
            seen, end = -1, 0.0
            while (now := len(self.project.noted("ended")) - 1) < ended:
                if now > seen:
                    seen, end = now, time.monotonic() + 300
                assert time.monotonic() < end, f"no trial has ended after the first {seen}"
                assert driver.poll() is None, driver.communicate()[0]
                time.sleep(0.05)

        def finish(self, driver, status=0):
            output, _ = driver.communicate(timeout=900)
            assert driver.returncode == status, output
            return output

        def check(self, name, count):
            """Each trial is an experiment here and on the Git remote, and its model is in S3."""
            baseline = self.project.git("rev-parse", "HEAD").strip()
            found = experiments_of(self.project.folder, baseline)
            found = {one: found[one] for one in found if one.startswith(f"birds.{name}-")}
            numbers = [int(one.removeprefix(f"birds.{name}-")[:4]) for one in found]
            assert sorted(numbers) == list(range(count))
            listed = self.project.git("ls-remote", "origin", "refs/exps/*")
            stored = set(s3.keys(self.bucket))
            for trial, commit in found.items():
                assert f"{commit}\trefs/exps/{baseline[:2]}/{baseline[2:]}/{trial}\n" in listed
                lock = yaml.safe_load(self.project.git("show", f"{commit}:./dvc.lock"))
                outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
                md5 = outs["models/classifier"]
                assert f"files/md5/{md5[:2]}/{md5[2:]}" in stored
            return list(found)

    return Team()


def test_a_late_node_gets_work_and_promoted_trials_go_on_where_their_checkpoints_are(
    team, tmp_path
):
    team.cluster.start("head", cpus=0)
    team.cluster.start("one", cpus=2, gpus=1)
    early = {"type": "hyperband", "min_iter": 12, "eta": 2, "s": 1}
    file = team.project.write_sweep("late", run_cap=5, early_terminate=early)
    driver = team.start(file, "--cpus", "2", "--gpus", "1")
    team.wait_for(1, driver)
    team.cluster.start("two", cpus=2, gpus=1)
    output = team.finish(driver)
    names = team.check("late", 5)
    project = team.project
    # Each configuration is trained once, from where the rung below has ended.
    began = [line.split() for line in project.noted("began")[1:]]
    ended = [line.split() for line in project.noted("ended")[1:]]
    assert sum(epoch == "0" for _, epoch in began) == 5
    promoted = [(name, epoch) for name, epoch in began if epoch != "0"]
    assert all([name, epoch] in ended for name, epoch in promoted)
    whole = sum(epoch == "24" for _, epoch in ended)
    assert 1 <= whole < 5
    assert f"trainings: {whole} whole, {5 - whole} stopped at a rung, 0 failed" in output
    # The first training is the project's own; each other one had its cores and its node's GPU.
    assert set(project.noted("share")[1:]) == {"2/0"}
    for node in ("one", "two"):  # both have worked, each in its own folder, and are tidied up
        (folder,) = (team.cluster.folder / node).iterdir()
        assert list(folder.glob("slots/*/clone/birds/dvc.lock"))
        assert list(folder.glob("clone/birds/.fieldguide/cache/files/md5/*"))
        assert not list(folder.glob("sweeps/*"))
    # The winner's training comes from S3, also on a later commit.
    project.git("commit", "--quiet", "--allow-empty", "--message", "later")
    assert "birds.late-" in project.sweep("best", file, "--apply")
    assert "Stage 'train' didn't change" in project.dvc("repro")
    assert len(project.noted("ended")) == len(ended) + 1
    # Only experiments are left on the remote, and another person gets a model from there.
    refs = project.git("ls-remote", "origin").splitlines()
    assert not [ref for ref in refs if "refs/fieldguide/" in ref]
    other = tmp_path / "other"
    project.git("clone", "--quiet", str(team.remote), str(other), "--branch", "main")
    theirs = project.at(other / "birds")
    theirs.dvc("exp", "pull", "origin", names[0])
    theirs.dvc("exp", "apply", names[0])
    assert (theirs.folder / "models/classifier/weights").is_file()


def test_trials_end_with_their_driver_and_the_next_one_goes_on_from_the_checkpoint(team):
    team.cluster.env["STUB_SECONDS"] = "12"
    team.cluster.start("head")
    file = team.project.write_sweep("short", run_cap=1)
    began = []
    for kill in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        driver = team.start(file)
        wait_for(lambda: len(team.project.noted("began")) == len(began) + 2)  # noqa: B023
        began = team.project.noted("began")[1:]
        time.sleep(1.5)  # two epochs or more
        os.kill(driver.pid, kill)
        wait_for(lambda: not processes_of(team.cluster.folder))
        driver.communicate(timeout=20)
    epochs = [int(line.split()[1]) for line in began]
    assert epochs[0] == 0
    assert epochs[0] < epochs[1] < epochs[2]


def test_the_log_of_a_trial_whose_params_fail_comes_from_its_node(team):
    team.cluster.start("head")
    space = {"optimizer": {"values": ["sgd", "adam"]}}
    file = team.project.write_sweep("faulty", method="grid", run_cap=None, parameters=space)
    output = team.finish(team.start(file), status=1)
    assert "trainings: 1 whole, 0 stopped at a rung, 1 failed" in output
    assert "birds.faulty-0000_o=sgd: the settings are at fault" in output
    log = team.project.folder / ".fieldguide/sweeps/birds.faulty/logs/birds.faulty-0000_o=sgd.log"
    assert "the settings are at fault\n" in log.read_text()


def test_what_a_cluster_needs_is_refused_by_name_if_it_is_missing(team):
    project = team.project
    file = project.write_sweep("refused")
    options = ("--engine", "ray", "--address", team.cluster.address)

    def refused(*more, **env):
        process = project.start(
            *(sys.executable, "-m", "fieldguide.cli", "sweep", "run", file, *options, *more),
            env=project.env | env,
        )
        return team.finish(process, status=1)

    assert "RAY_AUTH_MODE: found 'disabled'; allowed: token" in refused(RAY_AUTH_MODE="disabled")
    assert "nothing answers there" in refused("--address", "127.0.0.1:9")
    assert "found 'auto'; allowed: host:port" in refused("--address", "auto")
    team.cluster.start("head")
    assert "--git-remote: found 'gone'; allowed: origin" in refused("--git-remote", "gone")
    params = project.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("epochs: 24", "epochs: 11"))
    assert "params.yaml: changed and not committed, and a cluster gets the commit" in refused()
    params.write_text(before)  # refused before it began, the sweep may begin otherwise
    project.git("remote", "set-url", "origin", "https://me:secret@example.com/birds.git")
    assert "--git-remote origin: its address holds a password" in refused()
    project.git("remote", "set-url", "origin", str(team.remote))
    assert "no node holds --cpus 1 and --gpus 1;" in refused("--gpus", "1")
    project.dvc("remote", "remove", "storage")
    project.git("commit", "--quiet", "--all", "--message", "no remote")
    assert ".dvc/config: found no default remote" in refused()
    assert project.experiments() == []


@pytest.mark.soak  # Ray tries for twenty seconds
def test_another_token_is_no_key(team):
    team.cluster.start("head")
    file = team.project.write_sweep("token")
    team.project.env["RAY_AUTH_TOKEN"] = "x" * 32
    assert "or its token is another one" in team.finish(team.start(file), status=1)


@pytest.mark.soak
def test_a_head_that_dies_ends_the_driver_with_a_message(team):
    team.cluster.start("head")
    driver = team.start(team.project.write_sweep("headless"))
    team.wait_for(1, driver)
    team.cluster.kill("head")
    start = time.monotonic()
    assert "the head of the cluster is gone" in team.finish(driver, status=1)
    assert time.monotonic() - start < 60


@pytest.mark.soak
def test_a_node_without_the_remote_costs_no_trial(team):
    """It fails each trial at once, so that it is always free before the good node is."""
    team.cluster.start("head", cpus=0)
    team.cluster.start("good")
    rewritten = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "url./nowhere/.insteadOf"}
    team.cluster.start("bad", cpus=3, GIT_CONFIG_VALUE_0=str(team.remote), **rewritten)
    output = team.finish(team.start(team.project.write_sweep("places", run_cap=6)))
    assert "trainings: 6 whole, 0 stopped at a rung, 0 failed" in output
    team.check("places", 6)


@pytest.mark.soak
def test_24_trials_end_once_each_though_a_node_and_then_the_driver_are_killed(team):
    for name in ("head", "one", "two"):
        team.cluster.start(name)
    early = {"type": "hyperband", "min_iter": 6, "eta": 2, "s": 2}
    file = team.project.write_sweep("all", run_cap=24, early_terminate=early)
    driver = team.start(file)
    team.wait_for(10, driver)
    team.cluster.kill("two")
    team.wait_for(20, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    output = team.finish(team.start(file))
    assert "24 of 24 configurations begun" in output
    assert ", 0 failed" in output
    team.check("all", 24)
    base = load_params(team.project.folder / "params.yaml")
    sweep = load_sweep(team.project.folder / file, base)
    record = Record(replace(sweep, name="birds.all"), base, writes=False)
    runs = [one.run.key for one in record.ended]
    assert len(runs) == len(set(runs))  # each has ended once
    # A training is repeated only if its node or driver died before its end was recorded.
    again = len(team.project.noted("ended")) - 1 - len(runs)  # the first is the project's own
    assert 0 <= again <= 4
