"""`fieldguide verify` rebuilds a commit in a real Git and DVC repository."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
import yaml
from stub_pipeline import StubProject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    project = StubProject(tmp_path_factory.mktemp("verify") / "project")
    project.start_repository()
    project.write_pipeline()
    (project.folder / ".gitignore").write_text(".fieldguide/\n")
    project.dvc("repro", "--quiet")
    project.commit("start")
    project.dvc("push", "--quiet")
    return project


@pytest.fixture
def project(original, tmp_path):
    shutil.copytree(original.folder, tmp_path / "project", symlinks=True)
    return StubProject(tmp_path / "project")


def verify(project, *arguments, status=0, **env):
    done = subprocess.run(
        [sys.executable, "-m", "fieldguide.cli", "verify", *arguments],
        cwd=project.folder,
        env=project.env | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in (project.folder / ".fieldguide").rglob("*")}
    assert left <= {"verify", "0.lock"}
    return done.stdout + done.stderr


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_commit_is_rebuilt_without_any_cache_and_leaves_no_trace(project):
    before = project.git("status", "--porcelain"), project.git("for-each-ref")
    output = verify(project)
    assert "Verified: HEAD (" in output
    assert "differs" not in output
    assert "models/classifier" in output
    assert (project.git("status", "--porcelain"), project.git("for-each-ref")) == before


def test_a_colleagues_clone_needs_only_git_and_the_remote(project, tmp_path):
    assert "Verified: main (" in verify(project.clone(tmp_path / "clone"), "main")


def test_a_project_in_a_subfolder_and_a_shallow_clone(original, tmp_path):
    top = StubProject(tmp_path / "top")
    top.folder.mkdir()
    top.git("init", "--quiet", "--initial-branch", "main")
    top.name_user()
    birds = StubProject(top.folder / "birds")
    birds.folder.mkdir()
    birds.dvc("init", "--quiet", "--subdir")
    birds.write_pipeline()
    birds.dvc("repro", "--quiet")
    birds.commit("birds")
    birds.git("commit", "--quiet", "--allow-empty", "--message", "second")
    top.git("clone", "--quiet", "--depth", "1", top.folder.as_uri(), str(tmp_path / "shallow"))
    assert "Verified" in verify(StubProject(tmp_path / "shallow" / "birds"))


def test_a_model_edited_by_hand_is_named(project):
    model = project.folder / "models/classifier/model.json"
    text = model.read_text()
    model.unlink()
    model.write_text(text.replace("70", "71"))
    project.dvc("commit", "--force", "--quiet", "train")
    project.commit("edited")
    output = verify(project, status=1)
    assert "first models/classifier\n" in output
    assert "code, params and versions are the same, so models/classifier was changed" in output


def test_a_metric_edited_by_hand_is_named(project):
    metrics = project.folder / "metrics/test.json"
    metrics.write_text(json.dumps({"test": {"acc": 1.0}}))
    project.commit("edited")
    output = verify(project, status=1)
    assert "metrics/test.json: the file in Git is not the one that dvc.lock names" in output


def test_code_that_was_changed_and_not_run_is_named(project):
    with (project.folder / "stub.py").open("a") as file:
        file.write("# changed\n")
    project.commit("changed")
    output = verify(project, status=1)
    assert "stub.py: is not what dvc.lock names; run `dvc repro` and commit" in output


def test_a_param_that_was_changed_and_not_run_is_named(project):
    project.set_params(a=90)
    project.commit("changed")
    assert "params.yaml: train.a changed without `dvc repro`" in verify(project, status=1)


def test_another_version_is_named(project):
    environment = project.folder / "metrics/environment.json"
    environment.unlink()
    environment.write_text(json.dumps({"portable": True, "libraries": {"torch": "1"}}))
    project.dvc("commit", "--force", "--quiet", "train")
    project.commit("older")
    assert "made with another libraries.torch 1, here 2" in verify(project, status=1)


def test_a_command_that_was_changed_and_not_run_is_named(project):
    stages = project.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("stub.py visualize", "stub.py visualize again"))
    project.commit("changed")
    output = verify(project, status=1)
    assert "dvc.yaml: the command of a stage changed without `dvc repro`" in output


def test_a_stage_that_dvc_lock_lacks_is_named(project):
    lock = project.folder / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())
    del stages["stages"]["evaluate"], stages["stages"]["visualize"]
    lock.write_text(yaml.safe_dump(stages))
    project.commit("without evaluate")
    assert "first metrics/copies/evaluate\n" in verify(project, status=1)


def test_a_replaced_model_is_found_without_cache_and_remote(project, tmp_path):
    model = project.folder / "models/classifier/model.json"
    text = model.read_text()
    model.unlink()
    model.write_text(text.replace("70", "71"))
    project.dvc("commit", "--force", "--quiet", "train")
    project.dvc("remote", "remove", "storage")
    project.commit("edited")
    assert "first models/classifier\n" in verify(project.clone(tmp_path / "c"), status=1)


def test_the_state_of_an_outer_dvc_or_torchrun_does_not_matter(project):
    verify(project, DVC_ROOT=str(project.folder), RANK="1", WORLD_SIZE="2")


def test_a_remote_with_a_relative_path_and_a_file_per_archive(project, tmp_path):
    many = project.folder / "data/many"
    many.mkdir(parents=True)
    for name in ("a.zip", "b.zip"):
        (many / name).write_text(name)
        project.dvc("add", "--quiet", f"data/many/{name}")
    stages = project.folder / "dvc.yaml"
    found = yaml.safe_load(stages.read_text())
    found["stages"]["prepare"]["deps"].append("data/many")
    stages.write_text(yaml.safe_dump(found))
    project.dvc("remote", "modify", "storage", "url", "../storage")
    project.dvc("repro", "--quiet")
    project.commit("archives")
    project.dvc("push", "--quiet")
    assert "Verified" in verify(project.clone(tmp_path / "clone"))


def test_a_kill_leaves_no_process_and_the_next_one_cleans_up(project):
    stub = project.folder / "stub.py"
    text = stub.read_text()
    stub.write_text(f"import time\ntime.sleep(100)\n{text}")
    project.commit("slow")
    process = project.start(sys.executable, "-m", "fieldguide.cli", "verify")
    place = str(project.folder / ".fieldguide/verify/0")

    def running():
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.cwd().startswith(place) and "stub.py" in one.cmdline():
                    found.append(one)
        return found

    wait_for(running)
    process.kill()
    process.stdout.close()
    process.wait()
    wait_for(lambda: not running())
    stub.write_text(text)
    project.commit("as before")
    assert "Verified" in verify(project)


@pytest.mark.parametrize(("rounding", "status"), [("1", 0), ("60", 1)])
def test_results_that_are_not_portable_are_compared_by_the_gate(project, rounding, status):
    project.set_params(portable="false")
    project.dvc("repro", "--quiet")
    project.commit("not portable")
    assert "Verified" in verify(project)
    output = verify(project, status=status, STUB_ROUNDING=rounding)
    assert "first models/classifier\n" in output
    if status:
        assert "Regression in" in output
    else:
        # 150 photos of 200 are right, then 149.
        assert "Not the same bytes; test accuracy is no worse by more than" in output


def test_portable_results_must_be_the_same_bytes(project):
    assert "Not the same bytes" in verify(project, status=1, STUB_ROUNDING="1")


def test_the_workspace_is_refused(project):
    done = subprocess.run(
        [sys.executable, "-m", "fieldguide.cli", "verify", "workspace"],
        cwd=project.folder,
        env=project.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "found workspace; allowed: a commit" in done.stderr


def test_a_revision_that_cannot_be_rebuilt_says_so(project):
    (project.folder / "stub.py").write_text("import sys\nsys.exit('no photos')\n")
    project.commit("broken")
    output = verify(project, status=1)
    assert "no photos" in output
    assert "fieldguide: the revision cannot be rebuilt; the messages above say why" in output
