"""What is read of a revision, and what is said of what is missing or damaged."""

import json
import shutil

import pytest
import yaml
from results import BEE, CURVES, FIGURES, PARAMS, write_test, write_train

from fieldguide.core.errors import RevisionError
from fieldguide.report.changes import Change, compare
from fieldguide.report.html import render
from fieldguide.report.markdown import render_markdown
from fieldguide.results.revision import WORKSPACE, Revision, find_revision
from fieldguide.results.run import read_run


@pytest.fixture
def folder(tmp_path):
    """A workspace without Git, in which only params.yaml lies."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def read(root):
    return read_run(Revision(root, WORKSPACE, None))


@pytest.mark.slow
def test_a_commit_is_read_without_the_workspace(project, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    for name in ("metrics", "plots", "params.yaml", "dvc.lock"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    first = read_run(find_revision("first", copy))
    assert first.notes == {}
    assert first.scores["test.acc"] == 0.6
    assert first.params["train.epochs"] == 2
    assert first.curves["val/acc"] == CURVES["val/acc"][:2]
    assert set(first.figures) == set(FIGURES)
    assert first.photos[BEE] == {"train": 10, "val": 5, "test": 8}
    assert [one.photos for one in first.calibration] == [11, 9]
    second = read_run(find_revision("main", copy))
    changed = compare(first, second)
    assert changed.params == [Change("train.epochs", "3", "2")]
    assert changed.environment == [Change("device", "cpu: A", "cpu: B")]
    assert changed.data == []
    assert [one.key for one in changed.code] == ["made"]

    shutil.rmtree(copy / ".dvc" / "cache")
    bare = read_run(find_revision("first", copy))
    assert set(bare.notes) == {"metrics/predictions.csv", "plots/figures"}
    assert "cannot be had from DVC's cache or remote" in bare.notes["plots/figures"]
    assert bare.figures == {}
    assert [(one.confidence, one.photos) for one in bare.calibration] == [(0.7, None), (0.9, None)]
    assert "cannot be had" in render(bare, None)


@pytest.mark.slow
def test_what_was_changed_since_the_run_is_told(project, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["train"]["epochs"] = 9
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    write_test(copy, acc=0.99)
    (copy / "plots" / "figures" / "confusion.png").unlink()
    (copy / "plots" / "figures" / "confusion.png").write_bytes(b"another")
    run = read_run(find_revision(WORKSPACE, copy))
    assert run.notes["params.yaml"] == (
        "train.epochs changed since the results were made; run `dvc repro`"
    )
    assert run.notes["metrics/test.json"] == (
        "not the one that dvc.lock names: changed since; run `dvc repro`"
    )
    assert run.notes["plots/figures"].startswith(
        "1 of 4 are missing; plots/figures/confusion.png of workspace: the workspace's file is not"
    )
    assert set(run.figures) == set(FIGURES) - {"confusion"}


def test_only_train_ran(folder):
    write_train(folder)
    run = read(folder)
    missing = "missing; `dvc repro` writes it"
    for path in ("metrics/test.json", "metrics/per_class.json", "plots/confusion.csv"):
        assert run.notes[path] == missing
    assert "not in its dvc.lock" in run.notes["plots/figures"]
    text = render(run, None)
    for part in ("70.0%", "plots/confusion.csv: missing", "plots/figures: not in its dvc.lock"):
        assert part in text
    assert render(run, run).count("<section") == 10
    markdown = render_markdown(run, None)
    assert "| validation accuracy, kept epoch | 70.0% | – |" in markdown
    assert "`metrics/test.json`: missing" in markdown


def test_nothing_but_params_is_a_page_too(folder):
    run = read(folder)
    assert "metrics/test.json: missing" in render(run, None)
    assert "No metrics." in render_markdown(run, None)


def test_every_archive_of_a_list_is_shown_and_compared(folder):
    deps = [{"path": "a.zip", "md5": "ab12"}, {"path": "b.zip", "md5": "cd34"}]
    stage = {"deps": [*deps, {"path": "code.py", "md5": "ef"}], "outs": []}

    def read_of(archive):
        params = {**PARAMS, "data": {**PARAMS["data"], "archive": archive}}
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
        return read(folder)

    run, one = read_of(["a.zip", "b.zip"]), read_of("a.zip")
    page = render(run, None)
    assert all(f"<code>{text}</code>" in page for text in ("a.zip", "ab12", "b.zip", "cd34"))
    assert " on a.zip, b.zip.</p>" in page
    assert "`a.zip`, `b.zip`" in render_markdown(run, None)
    changes = {change.key: (change.before, change.after) for change in compare(run, one).data}
    assert changes["archive"] == ("a.zip", "a.zip, b.zip")
    assert changes["archive, MD5"] == ("ab12", "ab12, cd34")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(RevisionError, match=r"has neither params\.yaml nor dvc\.lock in"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("path", "content", "note"),
    [
        ("metrics/test.json", "{", "not JSON"),
        ("metrics/test.json", "[1]", "found list; allowed: a mapping"),
        ("metrics/per_class.json", '{"ant": {"recall": "high"}}', "not what this version writes"),
        ("metrics/per_class.json", '{"ant": 3}', "not what this version writes"),
        ("metrics/prepare.json", '{"classes": ["ant"]}', "not what this version writes"),
        ("plots/confusion.csv", "a,b\n1,2\n", "not what this version writes"),
        ("plots/reliability.csv", "confidence,accuracy\nx,y\n", "not what this version writes"),
        ("metrics/train/plots/metrics/val/acc.tsv", "step\tacc\n0\tx\n", "not what this version"),
        ("dvc.lock", "stages: {train: {outs: [1]}}", "found an out without path or md5"),
        ("dvc.lock", "a: b: c", "not YAML"),
        ("params.yaml", "[1, 2]", "allowed: a mapping"),
    ],
)
def test_damage_is_noted_and_the_rest_is_shown(folder, path, content, note):
    write_train(folder)
    write_test(folder)
    (folder / path).write_text(content)
    run = read(folder)
    assert note in run.notes[path]
    assert render(run, None).count("<section") == 9
    assert render_markdown(run, run)


def test_values_that_are_no_numbers_are_shown_as_what_they_are(folder):
    write_train(folder)
    write_test(folder, acc="NaN", ece=float("nan"), macro_f1=True, acc_low=0.1)
    tsv = folder / "metrics/train/plots/metrics/val/loss.tsv"
    tsv.write_text("step\tloss\n0\t1.5\n1\tnan\n2\tinf\n")
    run = read(folder)
    assert run.curves["val/loss"] == [1.5, None, None]
    text = render(run, None)
    for value in ("&#x27;NaN&#x27;", "nan", "True"):
        assert f"no number: {value}" in text
    blocks = text.split('type="application/json"')[1:]
    assert len(blocks) == 6
    for block in blocks:
        json.loads(block.split(">", 1)[1].split("</script>")[0], parse_constant=pytest.fail)
    assert "`no number: 'NaN'`" in render_markdown(run, run)


def test_a_metric_of_an_unknown_name_is_no_markup(folder):
    write_train(folder)
    write_test(folder, **{"@all [x](http://y) |": 1})
    run = read(folder)
    row = r"| `test.@all [x](http://y) \|` | 1 |"
    for text in (render_markdown(run, None), render_markdown(run, run)):
        assert row in text
        assert "| test accuracy | 70.0% |" in text
