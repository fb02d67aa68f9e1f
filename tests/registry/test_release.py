"""Releases and stages of a real project: what is refused, what is written, what others get."""

import json
import subprocess

import pytest
from here import fieldguide_here
from huggingface_hub import ModelCard
from trained import Trained

from fieldguide.core.errors import BundleError, FieldguideError, GitError, RegistryError
from fieldguide.inference.find import find_model
from fieldguide.registry.listing import list_releases
from fieldguide.registry.model_card import CARD
from fieldguide.registry.release import assign, release, unassign

pytestmark = pytest.mark.slow


def commits(project):
    return project.git("log", "--format=%s").splitlines()


def say(project, *command):
    """What fieldguide prints in the project's folder."""
    done = fieldguide_here(*command, cwd=project.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def val_acc(project, model):
    """Which classifier a name finds."""
    folder = find_model(model, project.folder)
    return json.loads((folder / "model.json").read_text())["val_acc"]


def refused(project, message, version="v1.0.0", **options):
    with pytest.raises(RegistryError, match=message):
        release(project.folder, version, **options)


def test_a_release_is_a_commit_of_the_card_alone_and_its_tag(project):
    before = project.head()
    done = release(project.folder, "v1.0.0", stage="dev", message="The first")
    assert done.tags == ["classifier@v1.0.0", "classifier#dev#1"]
    tagged = project.git("rev-parse", "classifier@v1.0.0^{commit}", "HEAD^")
    assert tagged == f"{done.commit}\n{before}"
    shown = project.git("show", "--format=%s", "--name-only", "HEAD")
    assert shown == f"Release v1.0.0\n\n{CARD}"
    assert "The first" in project.git("tag", "-n1")
    assert project.git("status", "--porcelain") == ""
    assert project.dvc("status").strip() == "Data and pipelines are up to date."
    card = (project.folder / CARD).read_text(encoding="utf-8")
    assert ModelCard(card).data.eval_results[0].metric_value == 0.833333
    assert "that is checked out: filters.png.\n" in card

    # The same again writes nothing more; what is missing is added.
    assert release(project.folder, "v1.0.0", stage="dev").tags == []
    assert release(project.folder, "v1.0.0", stage="prod").tags == ["classifier#prod#2"]
    assert project.head() == done.commit
    (row,) = list_releases(project.folder)
    assert (row.version, row.stages, row.commit) == ("v1.0.0", ["dev", "prod"], done.commit)
    assert row.accuracy == "83.3% (66.4% to 92.7%)"

    # As a person sees it.
    assert say(project, "releases").splitlines()[1].split()[:3] == ["v1.0.0", "dev,", "prod"]
    said = say(project, "assign", "v1.0.0", "dev")
    assert said.splitlines()[0] == "Tag    dev is v1.0.0 already"
    assert "classifier#dev!#3 on" in say(project, "unassign", "dev")

    # Later work is another version's.
    project.write("notes.txt", "later")
    project.commit("later")
    refused(project, r"v1\.0\.0: released already, as commit [0-9a-f]{7}")


def test_a_release_that_was_killed_is_finished_by_the_same_command(project):
    done = release(project.folder, "v1.0.0")
    # After the commit.
    project.git("tag", "--delete", "classifier@v1.0.0")
    again = release(project.folder, "v1.0.0")
    assert (again.commit, again.tags) == (done.commit, ["classifier@v1.0.0"])
    # Before the commit, or Git refused it.
    project.git("tag", "--delete", "classifier@v1.0.0")
    project.git("reset", "--soft", "HEAD~1")
    assert project.git("status", "--porcelain") == f"A  {CARD}"
    project.git("config", "commit.gpgSign", "true")
    project.git("config", "gpg.program", "false")
    with pytest.raises(GitError, match="git commit failed"):
        release(project.folder, "v1.0.0")
    project.git("config", "--unset", "commit.gpgSign")
    assert release(project.folder, "v1.0.0").tags == ["classifier@v1.0.0"]
    assert commits(project) == ["Release v1.0.0", "first results"]


def test_what_is_refused_leaves_nothing_behind(project, tmp_path):
    head = project.head()
    refused(project, r"version: found '1\.0\.0'; allowed: like v1\.2\.0", "1.0.0")
    refused(project, "stage: found 'pord'; allowed, by the file .gto: dev, prod", stage="pord")
    refused(project, "--push: no Git remote origin; run `git remote add", push=True)

    project.write("notes.txt", "new")
    refused(project, r"notes\.txt: changed or new, and not committed; commit or stash first")
    (project.folder / "notes.txt").unlink()
    project.write(CARD, "by hand\n")
    refused(project, rf"{CARD}: changed by hand and not committed; commit it")
    (project.folder / CARD).unlink()

    text = (project.folder / "metrics/test.json").read_text()
    project.write("metrics/test.json", text.replace("0.833333", '"nan"'))
    project.dvc("commit", "--quiet", "--force")
    project.commit("a run that went wrong")
    refused(project, r"metrics/test\.json of HEAD .*: 'test\.acc': found 'nan'")
    project.git("reset", "--quiet", "--hard", head)
    project.write("models/weights/none", "changed")
    project.commit("a dep by hand")
    refused(project, r"train: not as dvc\.lock says; run `dvc repro` and commit")
    project.git("reset", "--quiet", "--hard", head)

    # DVC's own memory of the remote says that all is there.
    stored = project.folder.with_name("store")
    stored.rename(tmp_path / "gone")
    with pytest.raises(FieldguideError, match="store"):
        release(project.folder, "v1.0.0")
    (tmp_path / "gone").rename(stored)
    weights = max(stored.rglob("*"), key=lambda file: file.is_file() and file.stat().st_size)
    weights.unlink()
    refused(project, r"models/classifier/model\.safetensors \(missing\): not on the DVC remote")
    project.git("config", "--file", ".dvc/config", "--remove-section", "core")
    project.git("commit", "--quiet", "--all", "--message", "no remote")
    with pytest.raises(FieldguideError, match=r"no default remote in \.dvc/config"):
        release(project.folder, "v1.0.0")

    project.git("reset", "--quiet", "--hard", head)
    assert project.git("tag") == ""
    assert project.git("status", "--porcelain") == ""


def test_dry_run_writes_nothing(project):
    done = release(project.folder, "v1.0.0", stage="prod", dry_run=True)
    assert "# Classifier of 3 classes, v1.0.0" in done.card
    assert not (project.folder / CARD).exists()
    assert project.git("tag") == ""


def share(project, s3):
    """A bare Git repository and a bucket as the project's remotes."""
    bare = project.folder.parent / "project.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", bare], check=True)
    project.git("remote", "add", "origin", str(bare))
    project.write(".dvc/config", s3.remote(s3.bucket("registry")))
    project.write(".dvc/config.local", s3.keys_of_remote())
    project.commit("an S3 remote")
    project.git("push", "--quiet", "--set-upstream", "origin", "main")
    project.dvc("push", "--quiet")
    return bare


def clone_of(bare, folder, s3):
    """What a colleague has: Git's remote, and the keys of DVC's."""
    subprocess.run(["git", "clone", "--quiet", bare, folder], check=True)
    clone = Trained(folder)
    clone.name_user()
    clone.write(".dvc/config.local", s3.keys_of_remote())
    return clone


@pytest.fixture
def photo(tmp_path, make_photos):
    file = tmp_path / "photo.png"
    file.write_bytes(next(iter(make_photos(each=1).values())))
    return file


def test_another_clone_gets_exactly_what_the_stage_holds(project, tmp_path, s3, photo):
    """Releases, a change of stage, and a fresh clone with nothing but the remotes."""
    bare = share(project, s3)
    first = release(project.folder, "v1.0.0", stage="prod", push=True)
    project.train(0.2)
    project.commit("better")
    refused(project, r"models/classifier.* not on the DVC remote", "v2.0.0", push=True)
    project.dvc("push", "--quiet")
    second = release(project.folder, "v2.0.0", stage="dev", push=True)
    assert (first.pushed_to, second.pushed_to) == ("origin", "origin")

    clone = clone_of(bare, tmp_path / "clone", s3)
    assert [(row.version, row.stages) for row in list_releases(clone.folder)] == [
        ("v2.0.0", ["dev"]),
        ("v1.0.0", ["prod"]),
    ]
    assert not (clone.folder / "models/classifier").exists()
    (one,) = json.loads(say(clone, "predict", "--model", "prod", "--json", str(photo)))
    assert set(one["classes"][0]) >= {"class", "probability"}
    assert val_acc(clone, "prod") == val_acc(clone, "v1.0.0") == 0.1
    assert val_acc(clone, "dev") == val_acc(clone, "v2.0.0") == 0.2
    # By DVC alone, from the Git remote's URL: it finds the keys in the environment.
    clone.env |= {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    get = ("artifacts", "get", str(bare), "classifier", "--stage", "prod", "--out")
    clone.dvc(*get, str(tmp_path / "got"))
    assert (tmp_path / "got/model.json").read_bytes() == (
        find_model("prod", clone.folder) / "model.json"
    ).read_bytes()

    # A version that was registered without a push goes with its stage.
    project.git("push", "--quiet", "origin", ":refs/tags/classifier@v2.0.0")
    # The clone moves prod on; then the first goes back; then prod is taken away.
    assert assign(clone.folder, "v2.0.0", "prod", push=True).tags == ["classifier#prod#3"]
    assert "classifier@v2.0.0" in clone.git("ls-remote", "--tags", "origin")
    assert val_acc(clone, "prod") == 0.2
    assert val_acc(project, "prod") == 0.1  # it has not fetched
    assert assign(project.folder, "v1.0.0", "prod", push=True).tags == ["classifier#prod#4"]
    clone.git("fetch", "--quiet", "--tags")
    assert val_acc(clone, "prod") == 0.1
    assert unassign(project.folder, "prod", push=True).tags
    clone.git("fetch", "--quiet", "--tags")
    with pytest.raises(BundleError, match=r"--model prod: no such folder; prod: withdrawn by"):
        find_model("prod", clone.folder)

    # Refused where the Git remote knows better.
    clone.write("notes.txt", "one more")
    clone.commit("one more")
    clone.git("push", "--quiet")
    refused(project, r"--push: origin has 1 commits that main lacks", "v3.0.0", push=True)
    with pytest.raises(RegistryError, match=r"v9\.0\.0: not registered; allowed: v1\.0\.0, v2"):
        assign(project.folder, "v9.0.0", "prod")
    with pytest.raises(RegistryError, match="staging: no version was ever assigned to it; allowed"):
        unassign(project.folder, "staging")

    # Damaged in the bucket: not taken.
    (key,) = [k for k, size in s3.keys("registry").items() if size == _weights(project)][:1]
    data = s3.read("registry", key)
    s3.write("registry", key, data[:-1] + bytes([data[-1] ^ 1]))
    other = clone_of(bare, tmp_path / "other", s3)
    with pytest.raises(BundleError, match=r"model\.safetensors.*is damaged there"):
        find_model("v1.0.0", other.folder)
    assert not list((other.folder / ".fieldguide/models").glob("*"))


def _weights(project):
    return (project.folder / "models/classifier/model.safetensors").stat().st_size
