"""Versions and stages in the tags of a real Git repository."""

import os
import subprocess
import time

import pytest

from fieldguide.core.errors import RegistryError, RevisionError
from fieldguide.registry import tags


class Repository:
    """Three empty commits, whose tags get the time that is wanted."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.commits = []
        for number in range(3):
            self.git("commit", "--quiet", "--allow-empty", "--message", str(number))
            self.commits.append(self.git("rev-parse", "HEAD"))

    def git(self, *command, at=None):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "A", f"GIT_{role}_EMAIL": "a@example.org"}
        if at is not None:
            env["GIT_COMMITTER_DATE"] = f"@{at} +0000"
        done = subprocess.run(
            ["git", *command], cwd=self.folder, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def tag(self, name, commit, *, at):
        self.git("tag", "--annotate", "--message", name, name, self.commits[commit], at=at)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.fixture
def scm(repository):
    with tags.registry(repository.folder) as opened:
        yield opened


def test_the_newest_assignment_holds_also_back_to_an_older_version(repository, scm):
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("classifier@v2.0.0", 1, at=1001)
    repository.tag("classifier#prod#1", 0, at=1002)
    repository.tag("classifier#prod#2", 1, at=1003)
    assert tags.find_commit(scm, "prod") == repository.commits[1]
    repository.tag("classifier#prod#3", 0, at=1004)
    assert tags.find_commit(scm, "prod") == repository.commits[0]
    assert tags.find_commit(scm, "v2.0.0") == repository.commits[1]
    assert tags.find_commit(scm, "dev") is None


def test_in_one_second_the_counter_decides_as_a_number(repository, scm):
    repository.tag("classifier#prod#9", 0, at=1000)
    repository.tag("classifier#prod#10", 1, at=1000)  # "10" is before "9" as text
    assert tags.find_commit(scm, "prod") == repository.commits[1]


def test_other_artifacts_and_tags_without_a_time_are_none_of_it(repository, scm):
    repository.tag("classifier#prod#1", 0, at=1000)
    repository.tag("detector#prod#2", 1, at=1001)
    repository.tag("v1.0.0", 1, at=1002)
    repository.git("tag", "classifier#prod#3", repository.commits[2])
    assert tags.find_commit(scm, "prod") == repository.commits[0]
    assert tags.find_commit(scm, "v1.0.0") is None


def test_what_was_withdrawn_is_refused(repository, scm):
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("classifier#prod#1", 0, at=1001)
    repository.tag("classifier#prod!#2", 0, at=1002)
    with pytest.raises(RevisionError, match=r"prod: withdrawn by the tag classifier#prod!#2"):
        tags.find_commit(scm, "prod")
    repository.tag("classifier@v1.0.0!", 0, at=1003)
    with pytest.raises(RevisionError, match=r"v1\.0\.0: withdrawn by the tag classifier@v1\.0\.0!"):
        tags.find_commit(scm, "v1.0.0")


def test_made_one_after_another_no_two_share_a_second_and_gto_and_dvc_agree(repository, scm):
    from gto import api  # noqa: PLC0415 - a second
    from gto.tag import find  # noqa: PLC0415

    first, second = repository.commits[:2]
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("classifier#prod#1", 0, at=1001)
    assert tags.register(scm, "v2.0.0", commit=second, message="two") == "classifier@v2.0.0"
    assert tags.assign(scm, "prod", commit=second, message=None) == "classifier#prod#2"
    assert tags.assign(scm, "prod", commit=first, message=None) == "classifier#prod#3"
    times = [event.time for event in tags.events(scm)]
    assert times == sorted(set(times))
    assert tags.find_commit(scm, "prod") == first
    assert find(name="classifier", stage="prod", scm=scm)[-1].target == first  # as DVC does
    shown = api.show(scm, "classifier")
    assert [version["version"] for version in shown if version["stages"]] == ["v1.0.0"]
    # Taken away, GTO does not fall back to the version before.
    assert len(tags.unassign(scm, "prod", message=None)) == 2
    assert not any(version["stages"] for version in api.show(scm, "classifier"))
    with pytest.raises(RevisionError, match=r"prod: withdrawn"):
        tags.find_commit(scm, "prod")
    with pytest.raises(RegistryError, match=r"registered in this commit with version 'v1\.0\.0'"):
        tags.register(scm, "v3.0.0", commit=first, message=None)


def test_a_clock_that_is_behind_is_refused(repository, scm):
    repository.tag("classifier@v1.0.0", 0, at=int(time.time()) + 1000)
    with pytest.raises(RegistryError, match=r"clock is \d{3,4} s behind .* allowed: at most 5 s"):
        tags.assign(scm, "prod", commit=repository.commits[0], message=None)


def test_only_in_the_top_folder_of_a_repository(repository, tmp_path_factory):
    (repository.folder / "deeper").mkdir()
    with (
        pytest.raises(RegistryError, match=r"deeper: not the top folder of the project; allowed:"),
        tags.registry(repository.folder / "deeper"),
    ):
        pass
    with (
        pytest.raises(RegistryError, match="no Git repository, which a registry needs"),
        tags.registry(tmp_path_factory.mktemp("none")),
    ):
        pass
