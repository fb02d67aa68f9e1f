"""`fieldguide check` in a real Git and DVC repository, and in clones of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from here import fieldguide_here

from fieldguide.gate.compare import compare
from fieldguide.results.revision import WORKSPACE

ROOT = Path(__file__).resolve().parents[2]
# The pipeline's stages, files and hashes, with a model that is right as often as params.yaml says.
STAGES = """\
stages:
  prepare:
    cmd: python stub.py prepare
    params: [data]
    deps: [stub.py]
    outs: [data/prepared]
  train:
    cmd: python stub.py train
    params: [train]
    deps: [stub.py, data/prepared]
    outs: [models/classifier]
    metrics: [{metrics/train/metrics.json: {cache: false}}]
  evaluate:
    cmd: python stub.py evaluate
    params: [evaluate]
    deps: [stub.py, data/prepared, models/classifier]
    outs: [metrics/predictions.csv, {metrics/per_class.json: {cache: false}}]
    metrics: [{metrics/test.json: {cache: false}}]
"""
STUB = """\
import csv, json, sys
from pathlib import Path
import yaml

params = yaml.safe_load(Path("params.yaml").read_text())
EACH = 100


def write(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))


if sys.argv[1] == "prepare":
    Path("data/prepared").mkdir(parents=True)
    photos = [
        (f"test/{label}/{k:03d}.png", label, f"{label}{k}") for label in "ab" for k in range(EACH)
    ]
    photos += [("test/b/099.png", "b", "another")] * params["data"]["new_photos"]
    # Larger pixels: more shards, and another order.
    shards = {"": photos}
    if params["data"]["image_size"] > 32:
        shards = {"-0": photos[:30:-1], "-1": photos[30::-1]}
    for prefix, lines in shards.items():
        with open(f"data/prepared/test{prefix}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["source", "class", "sha256"])
            rows.writerows(lines)
    write("data/prepared/dataset.json", params["data"])
elif sys.argv[1] == "train":
    write("models/classifier/model.json", params["train"])
    write("metrics/train/metrics.json", {"parameters": {"all": 10}})
else:
    right = json.loads(Path("models/classifier/model.json").read_text())
    acc = sum(right.values()) / (2 * EACH)
    with open("metrics/predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "true", "predicted", "p_a", "p_b"])
        for label, other in ("ab", "ba"):
            for k in range(EACH)[::-1 if Path("data/prepared/test-0.csv").exists() else 1]:
                said = label if k < right[label] else other
                p = [0.8, 0.2] if said == "a" else [0.2, 0.8]
                rows.writerow([f"test/{label}/{k:03d}.png", label, said, *p])
    write("metrics/per_class.json", {
        label: {"recall": right[label] / EACH, "precision": 0.5, "photos": EACH} for label in "ab"
    })
    write("metrics/test.json", {
        "test": {"photos": 2 * EACH, "acc": acc, "macro_f1": acc, "ece": abs(acc - 0.8)}
    })
"""
PARAMS = """\
data: {{image_size: {size}, new_photos: {new}}}
train: {{a: {a}, b: {b}}}
evaluate: {{calibration_bins: 15}}
"""
ENV = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": str(ROOT / "src"),
    "GIT_CONFIG_GLOBAL": os.devnull,
    "DVC_NO_ANALYTICS": "1",
    "NO_COLOR": "1",
}


def run(folder, *command, status=0):
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def check(folder, *arguments, status=0):
    return run(folder, sys.executable, "-m", "fieldguide.cli", "check", *arguments, status=status)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """main; the branches `worse` (b lost, a won, other pixels) and `new-photo`; pushed."""
    root = tmp_path_factory.mktemp("gate") / "project"
    root.mkdir()
    run(root, "git", "init", "--quiet", "--initial-branch", "main")
    run(root, "git", "config", "user.name", "A")
    run(root, "git", "config", "user.email", "a@example.org")
    run(root, "dvc", "init", "--quiet")
    run(root, "dvc", "remote", "add", "--default", "storage", str(root.parent / "storage"))
    (root / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (root / "stub.py").write_text(STUB, encoding="utf-8")
    shutil.copy(ROOT / "checks.yaml", root)
    for branch, values in {
        "main": {},
        "worse": {"a": 100, "b": 50, "size": 64},
        "new-photo": {"new": 1},
    }.items():
        if branch != "main":
            run(root, "git", "checkout", "--quiet", "-b", branch, "main")
        text = PARAMS.format(**{"size": 32, "new": 0, "a": 70, "b": 80} | values)
        (root / "params.yaml").write_text(text, encoding="utf-8")
        run(root, "dvc", "repro", "--quiet")
        run(root, "git", "add", "--all")
        run(root, "git", "commit", "--quiet", "--message", branch)
    run(root, "git", "checkout", "--quiet", "main")
    run(root, "dvc", "checkout", "--quiet")
    run(root, "dvc", "push", "--quiet", "--all-branches")
    return root


@pytest.fixture
def clone(project, tmp_path):
    """What a colleague has: a Git clone, and DVC's remote."""
    run(tmp_path, "git", "clone", "--quiet", str(project), "clone")
    for branch in ("worse", "new-photo"):
        run(tmp_path / "clone", "git", "branch", "--quiet", branch, f"origin/{branch}")
    return tmp_path / "clone"


@pytest.mark.slow
def test_a_fresh_clone_needs_git_and_the_remote_alone(clone):
    # The two differ in image size: other pixels of the same photos, in more shards and another
    # order, are the same test set.
    done = check(
        clone,
        *("--against", "main", "--candidate", "worse"),
        *("--json", "out/gate.json", "--markdown", "-"),
        status=1,
    )
    said = "recall.b fell from 0.800 to 0.500: −0.300 (98 % interval"
    assert f"- {said}" in done.stdout
    assert done.stdout.startswith("### ❌ Regression in 1 of 7 checks: worse")
    assert said in done.stderr  # the table makes room for the Markdown
    found = json.loads((clone / "out/gate.json").read_text(encoding="utf-8"))
    assert (found["verdict"], found["exit_status"], found["photos"]) == ("regression", 1, 200)
    assert found["paired"] is True
    failed = [one["name"] for one in found["findings"] if one["status"] == "failed"]
    assert failed == ["recall.b"]  # its accuracy is as good
    assert not (clone / "data" / "prepared").exists()


@pytest.mark.slow
def test_the_workspace_passes_against_its_own_commit(project):
    done = fieldguide_here("check", "--against", "main", cwd=project)
    assert done.returncode == 0
    assert "No regression in 7 checks: workspace against main (" in done.stdout
    assert "on the same 200 test photos" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_a_mistake_of_the_caller_is_status_2(project):
    error = check(project, "--against", "nowhere", status=2).stderr
    assert "nowhere: no such stage, version, revision or experiment" in error
    done = fieldguide_here("check", "--against", "main", "--checks", "none.yaml", cwd=project)
    assert done.returncode == 2
    assert done.stderr == "fieldguide: none.yaml: cannot be read (No such file or directory)\n"
    assert fieldguide_here("check", cwd=project).returncode == 2


@pytest.mark.slow
def test_a_photo_replaced_under_its_name_is_another_test_set(project):
    outcome = compare(project, "main", candidate="new-photo")
    assert outcome.exit_status == 2
    assert "differ (photos 1 with other content): scores on different photos" in outcome.refused


@pytest.mark.slow
def test_without_predictions_counts_decide(clone, project):
    shutil.copytree(project.parent / "storage", clone.parent / "storage")
    run(
        clone, "dvc", "remote", "modify", "--local", "storage", "url", str(clone.parent / "storage")
    )
    lock = run(clone, "git", "show", "worse:dvc.lock").stdout
    md5 = lock.split("path: metrics/predictions.csv")[1].split("md5: ")[1].split()[0]
    (clone.parent / "storage" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    outcome = compare(clone, "main", candidate="worse")
    assert outcome.exit_status == 1
    assert not outcome.paired
    assert outcome.notes[0].startswith(
        "by counts, not photo by photo: metrics/predictions.csv of wo"
    )
    assert [one.name for one in outcome.findings if one.status == "failed"] == ["recall.b"]


@pytest.mark.slow
def test_results_that_no_run_wrote_are_refused(clone):
    def refused():
        outcome = compare(clone, "main", candidate=WORKSPACE)
        assert outcome.exit_status == 2
        return outcome.refused

    def edit(name, old, new):
        file = clone / name
        before = file.read_text(encoding="utf-8")
        assert old in before
        file.write_text(before.replace(old, new), encoding="utf-8")
        return before

    edit("metrics/test.json", "0.75", "0.95")
    assert refused().startswith(
        "metrics/test.json of workspace: is not the file that dvc.lock names"
    )
    run(clone, "git", "checkout", ".")
    lock = (clone / "dvc.lock").read_text(encoding="utf-8")
    md5 = lock.split("path: models/classifier")[1].split("md5: ")[1].split()[0]
    head, tail = lock.rsplit(md5, 1)  # the last one is train's
    (clone / "dvc.lock").write_text(f"{head}{'0' * 32}.dir{tail}", encoding="utf-8")
    assert "evaluate did not run on its models/classifier, but on an earlier one" in refused()
    # A folder on a version-aware remote has a list of files in place of a hash.
    (clone / "dvc.lock").write_text(lock.replace(f"md5: {md5}", "files: []", 1), encoding="utf-8")
    assert refused().startswith("dvc.lock of workspace: found an out without path or md5")
    (clone / "dvc.lock").unlink()
    assert refused().startswith("dvc.lock of workspace: has no stage evaluate; run `dvc repro`")


@pytest.mark.slow
def test_loosened_checks_are_told(clone):
    file = clone / "checks.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\n# looser\n", encoding="utf-8")
    outcome = compare(clone, "main", candidate="main")
    assert outcome.exit_status == 0
    assert outcome.notes[0].startswith("checks.yaml is not that of main (")
    shutil.copy(file, clone.parent)  # one that no revision has
    outcome = compare(clone, "main", candidate="main", checks=Path("../checks.yaml"))
    assert (outcome.exit_status, outcome.notes) == (0, [])
