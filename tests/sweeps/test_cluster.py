"""A sweep on a real Ray cluster, whose nodes share only a Git remote and an S3 bucket.

The nodes are raylets on this machine, each with its own folder for clones and DVC's cache.
"""

import os
import signal
import sys
import time
from collections import Counter

import pytest
import yaml
from stub import Stub

from fieldguide.sweeps.experiments import read_trials

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
            """Wait until so many trials have been trained; the first note is the project's own."""
            end = time.monotonic() + 120
            while len(self.project.noted("ended")) - 1 < ended:
                assert time.monotonic() < end, "waited in vain"
                assert driver.poll() is None, driver.communicate()[0]
                time.sleep(0.05)

        def finish(self, driver, status=0):
            output, _ = driver.communicate(timeout=300)
            assert driver.returncode == status, output
            return output

        def check(self, name, count):
            """Every trial is an experiment here and on the Git remote, and its model in S3."""
            trials = read_trials(self.project.folder, f"birds.{name}")
            assert Counter(trial.number for trial in trials) == dict.fromkeys(range(count), 1)
            listed = self.project.git("ls-remote", "origin", "refs/exps/*")
            stored = set(s3.keys(self.bucket))
            for trial in trials:
                assert f"{trial.rev}\t{trial.ref}\n" in listed
                lock = yaml.safe_load(self.project.git("show", f"{trial.rev}:./dvc.lock"))
                outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
                md5 = outs["models/classifier"]
                assert f"files/md5/{md5[:2]}/{md5[2:]}" in stored
                assert str(trial.params["train.learning_rate"]) in self.project.git(
                    "show", f"{trial.rev}:./params.yaml"
                )
            return trials

    return Team()


def test_a_late_node_gets_work_and_losers_are_pruned_across_nodes(team, tmp_path):
    team.cluster.start("head", cpus=0)
    team.cluster.start("one", cpus=2, gpus=1)
    early = {"type": "hyperband", "min_iter": 1, "eta": 2, "s": 1}
    file = team.project.write_sweep("late", method="bayes", run_cap=8, early_terminate=early)
    driver = team.start(file, "--cpus", "2", "--gpus", "1")
    team.wait_for(1, driver)
    team.cluster.start("two", cpus=2, gpus=1)
    output = team.finish(driver)
    trials = team.check("late", 8)
    pruned = sum(trial.pruned for trial in trials)
    assert f"{8 - pruned} done, {pruned} pruned, 0 failed, 8 configurations" in output
    assert 0 < pruned < 8
    # The first training is the project's own; each other one had its cores and its node's GPU.
    assert set(team.project.noted("share")[1:]) == {"2/0"}
    for node in ("one", "two"):  # both have worked, each in its own folder
        assert list((team.cluster.folder / node).glob("*/slots/*/birds/dvc.lock"))
        assert list(
            (team.cluster.folder / node).glob("*/clone/birds/.fieldguide/cache/files/md5/*")
        )
    # The winner's model comes from S3; it is not trained again.
    project, trained = team.project, len(team.project.noted("ended"))
    assert "birds.late-" in project.sweep("best", file, "--apply")
    weights = (project.folder / "models/classifier/weights").read_text()
    assert weights == (project.folder / "params.yaml").read_text()
    assert len(project.noted("ended")) == trained
    # Only experiments are left on the remote, and another person gets a model from there.
    refs = team.project.git("ls-remote", "origin").splitlines()
    assert not [ref for ref in refs if "refs/fieldguide/" in ref]
    other = tmp_path / "other"
    team.project.git("clone", "--quiet", str(team.remote), str(other), "--branch", "main")
    theirs = team.project.at(other / "birds")
    theirs.dvc("exp", "pull", "origin", trials[0].name)
    theirs.dvc("exp", "apply", trials[0].name)
    weights = (theirs.folder / "models/classifier/weights").read_text()
    assert weights == (theirs.folder / "params.yaml").read_text()


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
    params.write_text(f"{before}# mine\n")
    assert "params.yaml: changed and not committed, and a cluster gets the commit" in refused()
    params.write_text(before)
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
    driver = team.start(team.project.write_sweep("places", run_cap=6))
    assert "6 done, 0 pruned, 0 failed, 6 configurations" in team.finish(driver)
    team.check("places", 6)


@pytest.mark.soak
@pytest.mark.parametrize("killed", ["node", "driver"])
def test_24_trials_end_exactly_once_whatever_is_killed_in_the_middle(team, killed):
    for name in ("head", "one", "two"):
        team.cluster.start(name)
    file = team.project.write_sweep("all", method="bayes", run_cap=24)
    driver = team.start(file)
    team.wait_for(8, driver)
    if killed == "node":
        team.cluster.kill("two")
    else:
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        driver = team.start(file)
    output = team.finish(driver)
    team.check("all", 24)
    assert "24 done, 0 pruned, 0 failed, 24 configurations" in output
    # A training is repeated only if its node died before it published it.
    again = len(team.project.noted("ended")) - 24 - 1  # the first is the project's own
    assert 0 <= again <= (1 if killed == "node" else 0)
