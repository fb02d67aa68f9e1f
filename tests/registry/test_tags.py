"""Versions and stages in the tags of a real Git repository, as we, GTO and DVC read them."""

import os
import subprocess
import time

import pytest

from fieldguide.core.errors import GitError, RegistryError, RevisionError
from fieldguide.registry import tags
from fieldguide.results.versions import VersionTags


class Repository:
    """Three empty commits, and tags with any time."""

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
def registry(repository):
    return VersionTags(repository.folder)


def test_the_newest_assignment_holds_even_of_an_older_version(repository, registry):
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("classifier@v2.0.0", 1, at=1001)
    repository.tag("classifier#prod#1", 0, at=1002)
    repository.tag("classifier#prod#2", 1, at=1003)
    assert registry.find_commit("prod") == repository.commits[1]
    repository.tag("classifier#prod#3", 0, at=1004)
    assert registry.find_commit("prod") == repository.commits[0]
    assert registry.find_commit("v2.0.0") == repository.commits[1]
    assert registry.find_commit("dev") is None


def test_within_one_second_the_counter_decides_as_a_number(repository, registry):
    repository.tag("classifier#prod#9", 0, at=1000)
    repository.tag("classifier#prod#10", 1, at=1000)  # "10" is before "9" as text
    assert registry.find_commit("prod") == repository.commits[1]


def test_other_artifacts_and_lightweight_tags_do_not_count(repository, registry):
    repository.tag("classifier#prod#1", 0, at=1000)
    for name in ("detector#prod#2", "birds=classifier#prod#3", "classifier2#prod#4", "v1.0.0"):
        repository.tag(name, 1, at=1001)
    repository.tag("classifier@deprecated", 1, at=1001)
    repository.git("tag", "classifier#prod#5", repository.commits[2])
    assert registry.find_commit("prod") == repository.commits[0]
    assert registry.find_commit("v1.0.0") is None


def test_each_folder_has_versions_of_its_own(repository, registry):
    folder = repository.folder / "animals" / "my-birds"
    folder.mkdir(parents=True)
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("animals/my-birds=classifier@v1.0.0", 1, at=1001)
    birds = VersionTags(folder)
    assert birds.artifact == "animals/my-birds:classifier"
    assert birds.find_commit("v1.0.0") == repository.commits[1]
    assert registry.find_commit("v1.0.0") == repository.commits[0]


def test_what_was_withdrawn_is_refused(repository, registry):
    repository.tag("classifier@v1.0.0", 0, at=1000)
    repository.tag("classifier#prod#1", 0, at=1001)
    repository.tag("classifier#prod!#2", 0, at=1002)
    with pytest.raises(RevisionError, match=r"prod: withdrawn by the tag classifier#prod!#2"):
        registry.find_commit("prod")
    repository.tag("classifier@v1.0.0!", 0, at=1003)
    with pytest.raises(RevisionError, match=r"v1\.0\.0: withdrawn by the tag classifier@v1\.0\.0!"):
        registry.find_commit("v1.0.0")


@pytest.mark.parametrize("folder", ["", "birds"])
def test_no_two_of_our_tags_share_a_second_and_gto_and_dvc_agree(folder, repository):
    from gto import api  # noqa: PLC0415 - a second
    from gto.tag import find  # noqa: PLC0415
    from scmrepo.git import Git  # noqa: PLC0415

    (repository.folder / folder).mkdir(exist_ok=True)
    registry = VersionTags(repository.folder / folder)
    start = f"{folder}=classifier" if folder else "classifier"
    first, second = repository.commits[:2]
    repository.tag(f"{start}@v1.0.0", 0, at=1000)
    repository.tag(f"{start}#prod#1", 0, at=1001)
    assert tags.register(registry, "v2.0.0", commit=second, message="two") == f"{start}@v2.0.0"
    assert tags.assign(registry, "prod", commit=second, message=None) == f"{start}#prod#2"
    assert tags.assign(registry, "prod", commit=first, message=None) == f"{start}#prod#3"
    times = [event.time for event in registry.events()]
    assert times == sorted(set(times))
    assert registry.find_commit("prod") == first
    scm = Git(repository.folder)
    assert find(name=registry.artifact, stage="prod", scm=scm)[-1].target == first  # as DVC does
    shown = api.show(scm, registry.artifact)
    assert [version["version"] for version in shown if version["stages"]] == ["v1.0.0"]
    # GTO does not fall back to the version before.
    assert len(tags.unassign(registry, "prod", message=None)) == 2
    assert not any(version["stages"] for version in api.show(scm, registry.artifact))
    with pytest.raises(RevisionError, match=r"prod: withdrawn"):
        registry.find_commit("prod")
    with pytest.raises(RegistryError, match=r"registered in this commit with version 'v1\.0\.0'"):
        tags.register(registry, "v3.0.0", commit=first, message=None)
    scm.close()


def test_a_clock_that_is_behind_is_refused(repository, registry):
    repository.tag("classifier@v1.0.0", 0, at=int(time.time()) + 1000)
    with pytest.raises(RegistryError, match=r"clock is \d{3,4} s behind .* allowed: at most 5 s"):
        tags.assign(registry, "prod", commit=repository.commits[0], message=None)


def test_names_that_gto_would_refuse(repository):
    folder = repository.folder / "my birds"
    folder.mkdir()
    with pytest.raises(RegistryError, match=r"my birds:classifier: .* allowed: letters, digits"):
        tags.check_names(VersionTags(folder))
    # In each folder: .gto is GTO's file, and GTO reads it from Git's top folder.
    (repository.folder / ".gto").write_text("stages: [dev, prod]\n")
    (repository.folder / "birds").mkdir()
    for registry in (VersionTags(repository.folder), VersionTags(repository.folder / "birds")):
        tags.check_names(registry, version="v1.2.0-rc.1", stage="prod")
        for version in ("1.0.0", "v1.0", "v01.0.0", "v1.0.0 ", "v1.0.0\n", "latest"):
            with pytest.raises(RegistryError, match=r"version: found '.*'; allowed: like v1\.2\.0"):
                tags.check_names(registry, version=version)
        with pytest.raises(RegistryError, match=r"found 'pord'; allowed, by the file \.gto: dev"):
            tags.check_names(registry, stage="pord")
    (repository.folder / ".gto").unlink()
    with pytest.raises(RegistryError, match="stage: found 'a b'; allowed: letters, digits"):
        tags.check_names(VersionTags(repository.folder), stage="a b")


def test_a_folder_in_no_repository(tmp_path):
    with pytest.raises(GitError, match="not a git repository"):
        VersionTags(tmp_path)
