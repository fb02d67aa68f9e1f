"""What a revision holds: each value, and each reason why one is missing."""

import json
import re
import shutil

import pytest

from fieldguide.core.errors import RevisionError
from fieldguide.evaluation.calibration import Bin
from fieldguide.results.results import (
    ClassCounts,
    LeftOutFile,
    Missing,
    PhotoIdentity,
    Timing,
    known,
    need,
    read_results,
)
from fieldguide.results.revision import WORKSPACE

pytestmark = pytest.mark.slow


def replace(copy, name, old, new):
    """Change a file of a copy, whose files may be links into DVC's cache."""
    file = copy.folder / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.unlink()
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def accept(copy, name, text):
    """Write a file, and let dvc.lock name it as if a stage had written it."""
    (copy.folder / name).unlink(missing_ok=True)
    (copy.folder / name).write_text(text, encoding="utf-8")
    copy.dvc("commit", "--quiet", "--force", name)


def damaged(copy, part, pattern):
    """Check that a result of the workspace is damaged, and why."""
    found = getattr(read_results(WORKSPACE, copy.folder), part)
    assert isinstance(found, Missing)
    assert found.damaged
    assert re.match(pattern, str(found)), str(found)


def missing_of(results):
    """All results that are missing."""
    names = (
        *("lock", "params", "photos", "left_out", "left_out_files", "model", "train_metrics"),
        *("curves", "test_metrics", "confusion", "classes", "reliability", "predictions"),
        *("environment", "timing", "figure_paths"),
    )
    found = [getattr(results, name) for name in names]
    return [one for one in found if isinstance(one, Missing)]


@pytest.mark.parametrize(("name", "hits"), [("first", 70), ("main", 90), (WORKSPACE, 90)])
def test_every_value_of_a_revision(stub, name, hits):
    results = read_results(name, stub.folder)
    acc = (hits + 80) / 200
    assert missing_of(results) == []
    assert results.params["train.a"] == hits
    assert results.train_metrics["best.val_acc"] == 0.5
    assert results.test_metrics["test.acc"] == acc
    assert results.metrics == {**results.train_metrics, **results.test_metrics}
    assert results.data_metrics["photos.left_out"] == 1
    assert results.photos == {"a": ClassCounts(4, 2, 100), "b": ClassCounts(4, 2, 100)}
    assert results.left_out == {"unreadable": 0, "duplicate": 1}
    (left_out,) = results.left_out_files
    assert left_out == LeftOutFile("a/1.png", "a", "duplicate", "copy of another photo")
    assert results.curves["val_acc"] == [0.4, 0.5]
    assert results.confusion.counts.tolist() == [[hits, 100 - hits], [20, 80]]
    assert [(one.name, one.recall) for one in results.classes] == [("a", hits / 100), ("b", 0.8)]
    assert results.reliability == [Bin(0.8, acc, 200)]
    assert results.predictions.sources[0] == "test/a/000.png"
    assert results.environment == {"portable": True, "libraries.torch": "2"}
    assert results.timing == Timing(60.5, 2, 8.0)
    assert results.test_photos["test/b/099.png"] == PhotoIdentity("b", "b99")
    assert results.figure_paths == ["plots/figures/filters_conv1.png"]
    assert results.figure("plots/figures/filters_conv1.png") == b"PNG"
    low, high = results.interval("test.acc")
    assert low < acc < high
    assert results.interval("test.ece") is None
    assert results.model.size == sum(
        len(stub.read(path)) for path in results.folder(results.model.path)
    )


def test_the_commit_is_described(stub):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d first", read_results("first", stub.folder).about)
    about = read_results(WORKSPACE, stub.folder).about
    assert re.fullmatch(r"on [0-9a-f]+, \d{4}-\d\d-\d\d second", about)


def test_results_of_a_clone_come_from_the_remote(stub, tmp_path):
    clone = stub.clone(tmp_path / "clone")
    assert missing_of(read_results("first", clone.folder)) == []
    assert missing_of(read_results(WORKSPACE, clone.folder)) == []


def test_results_of_the_real_pipeline(finished):
    results = read_results("main", finished.folder)
    assert missing_of(results) == []
    assert missing_of(read_results(WORKSPACE, finished.folder)) == []
    # What was asked for, and what it became.
    shown = {"train.crop": "auto (shift)", "model.input_size": "auto (32)", "train.epochs": 6}
    assert results.params | shown == results.params


def test_what_is_absent_is_missing_and_not_damaged(copy, remote):
    (copy.folder / "plots" / "curves.csv").unlink()
    assert read_results(WORKSPACE, copy.folder).curves["val_acc"] == [0.4, 0.5]  # the remote has it
    shutil.rmtree(copy.folder / ".dvc" / "cache")
    shutil.rmtree(copy.folder.with_name("storage"))
    results = read_results(WORKSPACE, copy.folder)
    assert not results.curves.damaged
    with pytest.raises(RevisionError, match=r"plots/curves\.csv of workspace: cannot be had from"):
        need(results.curves)
    assert known(results.curves, {}) == {}
    assert need(results.params) is results.params


def test_what_is_not_in_dvc_lock(copy):
    replace(copy, "dvc.lock", "metrics/test.json", "metrics/other.json")
    results = read_results(WORKSPACE, copy.folder)
    reason = "not in its dvc.lock; run `dvc repro`"
    assert results.test_metrics == Missing("metrics/test.json", WORKSPACE, reason)
    with pytest.raises(RevisionError, match=r"^models/other of workspace: not in its dvc\.lock"):
        results.folder("models/other")


def test_without_dvc_lock_only_params_are_known(copy):
    (copy.folder / "dvc.lock").unlink()
    results = read_results(WORKSPACE, copy.folder)
    assert results.params["train.a"] == 90
    assert results.outputs == results.inputs == {}
    assert str(results.test_metrics) == (
        "metrics/test.json of workspace: dvc.lock: missing; run `dvc repro`"
    )
    assert "plots/figures" in {one.path for one in missing_of(results)}
    assert not any(one.damaged for one in missing_of(results))


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "[]\n", "stages:\n  a: {outs: [{path: b}]}\n"])
def test_a_damaged_dvc_lock(copy, text):
    (copy.folder / "dvc.lock").write_text(text, encoding="utf-8")
    damaged(copy, "lock", r"dvc\.lock of workspace: (not YAML|found|not laid out as `dvc repro`)")
    damaged(copy, "predictions", r"metrics/predictions\.csv of workspace: dvc\.lock: ")


@pytest.mark.parametrize(
    ("part", "name", "old"),
    [
        ("test_metrics", "metrics/test.json", "0.85"),  # Git's
        ("predictions", "metrics/predictions.csv", "0.8"),  # DVC's
    ],
)
def test_what_was_changed_by_hand(copy, part, name, old):
    replace(copy, name, old, "0.9")
    damaged(copy, part, f"{name} of workspace: not the file that dvc.lock names: it was changed")


def test_results_of_an_earlier_model_are_stale(copy):
    copy.set_params(a=50)
    copy.dvc("repro", "--quiet", "train")
    damaged(copy, "test_metrics", ".*: evaluate did not run on this models/classifier, but on an e")
    damaged(copy, "figure_paths", "plots/figures of workspace: visualize did not run on this model")
    assert read_results(WORKSPACE, copy.folder).metrics["best.val_acc"] == 0.5


def test_params_are_those_of_the_run(copy):
    copy.set_params(a=50)
    results = read_results(WORKSPACE, copy.folder)
    assert results.params["train.a"] == 90
    assert results.changed_params == ["train.a"]
    (copy.folder / "params.yaml").write_text("- 1\n", encoding="utf-8")
    damaged(copy, "params", r"params\.yaml of workspace: found \[1\]; allowed: a mapping")


@pytest.mark.parametrize(
    ("part", "name", "text"),
    [
        ("test_metrics", "metrics/test.json", "[]"),
        ("test_metrics", "metrics/test.json", '{"test": '),
        ("confusion", "plots/confusion.csv", "actual,called\na,b\n"),
        ("curves", "plots/curves.csv", "epoch,val_acc\n1,high\n"),
        ("predictions", "metrics/predictions.csv", "source,true,predicted,p_a\nx,a,a,nan\n"),
    ],
)
def test_unreadable_content(copy, part, name, text):
    accept(copy, name, text)
    damaged(copy, part, f"{re.escape(name)} of workspace: not what this version writes .*dvc repro")


def test_an_object_that_is_damaged_on_the_remote(copy, remote):
    results = read_results("main", copy.folder)
    for path in ("metrics/predictions.csv", "data/prepared", "plots/figures"):
        remote(results.outputs[path].md5).write_bytes(b"[]")
    for found in (results.predictions, results.test_photos, results.figure_paths):
        assert not found.damaged  # another copy may be whole: it cannot be had here
        assert re.search(r"remote storage: \w+(\.dir)? is damaged there", str(found))


def test_the_time_is_that_of_this_model_or_missing(copy):
    note = copy.folder / "metrics" / "timing.json"
    train = json.loads(note.read_text(encoding="utf-8"))["train"]
    for text in ("{}", json.dumps({"train": train | {"model": "0.dir"}})):
        note.write_text(text, encoding="utf-8")
        found = read_results(WORKSPACE, copy.folder).timing
        assert (found.reason, found.damaged) == (
            "not of this model: DVC restored it from an earlier run",
            False,
        )
    for text in ("[]", "{", json.dumps({"train": train | {"seconds": "long"}})):
        note.write_text(text, encoding="utf-8")
        damaged(copy, "timing", r"metrics/timing\.json of workspace: not what `train` writes")
    note.unlink()
    copy.dvc("repro", "--quiet", "--force", "train")
    assert read_results(WORKSPACE, copy.folder).timing == Timing(60.5, 2, 8.0)


def test_a_folder_without_a_project_is_refused(copy):
    (copy.folder / "docs").mkdir()
    for name in (WORKSPACE, "main"):
        with pytest.raises(
            RevisionError, match=r"has neither params\.yaml nor dvc\.lock in /.*docs"
        ):
            read_results(name, copy.folder / "docs")


def test_a_group_of_several_classes_is_one_group(copy):
    """20 places with photos of both classes; plots/classes.csv counts 100 groups of each."""
    assert read_results(WORKSPACE, copy.folder).groups_note == ""
    lines = [f"{k % 20},test,{c},{c}{k}.png,0" for c in "ab" for k in range(100)]
    groups = "\n".join(["group,split,class,file,near_copy", *lines, ""])
    (copy.folder / "data/prepared/groups.csv").write_text(groups, encoding="utf-8")
    copy.dvc("commit", "--quiet", "--force", "prepare")
    note = read_results(WORKSPACE, copy.folder).groups_note
    assert note.startswith("The 200 test photos are 20 groups: ")
