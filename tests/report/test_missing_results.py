"""What a report says of results that are missing, changed or damaged."""

import json
import re
import shutil

import pytest
import yaml
from results import FIGURES, PARAMS, write_lock, write_test, write_train
from stub_pipeline import StubProject

from fieldguide.report.changes import Change, compare
from fieldguide.report.run_report import read_report, render_markdown, render_page
from fieldguide.results.results import read_results


@pytest.fixture
def folder(tmp_path):
    """A workspace without Git, in which only params.yaml lies."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


@pytest.fixture
def copy(project, tmp_path):
    """The project, to be changed."""
    return shutil.copytree(project, tmp_path / "copy", symlinks=True)


def read(root, rev="workspace", against=None):
    return read_report(read_results(rev, root), against and read_results(against, root))


def reasons(report):
    return {one.path: one.reason for one in report.missing}


@pytest.mark.slow
def test_a_commit_is_read_without_the_workspace(copy):
    for name in ("metrics", "plots", "params.yaml", "dvc.lock"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = read(copy, "first", "main")
    assert reasons(report) == {}
    assert [picture.name for picture in report.pictures][:2] == list(FIGURES[:2])
    assert len(report.pictures) == 4
    found = compare(report.run, report.other)
    assert found.params == [Change("train.epochs", "3", "2")]
    assert found.environment == [Change("device", "cpu: A", "cpu: B")]
    assert [one.key for one in found.code] == ["src/code.py"]
    assert [one.key for one in found.data] == ["classifier, MD5", "made"]

    shutil.rmtree(copy / ".dvc" / "cache")
    bare = read(copy, "first")
    assert set(reasons(bare)) == {"plots/figures"}
    page = render_page(bare)
    assert "plots/figures: cannot be had from DVC&#39;s cache or remote" in page
    assert 'data-chart="calibration-chart"' in page


@pytest.mark.slow
def test_every_file_left_out_is_named(tmp_path):
    stub = StubProject(tmp_path / "project")
    stub.start_repository()
    stub.write_pipeline()
    stub.dvc("repro", "--quiet", "prepare")
    page = render_page(read(stub.folder))
    row = "<td class=.text.>a/1.png</td><td class=.text.>a</td><td>duplicate</td>"
    assert re.search(f"<h3>Files left out</h3>.*{row}", page, re.DOTALL)


@pytest.mark.slow
def test_what_was_changed_since_the_run_is_told(copy):
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["train"]["epochs"] = 9
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    write_test(copy, acc=0.99)
    figure = copy / "plots" / "figures" / "mistakes.png"
    figure.unlink()  # it may be a link into DVC's cache
    figure.write_bytes(b"another")
    report = read(copy)
    found = reasons(report)
    assert found["params.yaml"].startswith("train.epochs changed since the results were made")
    assert found["metrics/test.json"].startswith("not the file that dvc.lock names")
    assert found["plots/figures"].startswith(
        "1 of 4 are missing; plots/figures/mistakes.png: the file is not the one that dvc.lock"
    )
    assert "plots/figures: 1 of 4 are missing" in render_page(report)
    assert {picture.name for picture in report.pictures} == set(FIGURES) - {"mistakes"}
    assert "99.0%" not in render_page(report)
    assert "> - metrics/test.json: not the file" in render_markdown(report)


def test_only_train_ran(folder):
    write_train(folder)
    write_lock(folder, "prepare", "train")
    report = read(folder)
    paths = ("metrics/test.json", "plots/confusion.csv", "plots/figures")
    assert {reasons(report)[path] for path in paths} == {"not in its dvc.lock; run `dvc repro`"}
    page = render_page(report)
    for part in ("70.0%", *(f"{path}: not in its dvc.lock" for path in paths)):
        assert part in page
    assert page.count("<section") == 10
    markdown = render_markdown(report)
    assert "| validation accuracy, kept epoch | 70.0% | – |" in markdown
    assert "> - metrics/test.json: not in its dvc.lock" in markdown


def test_nothing_but_params_is_a_page_too(folder):
    report = read(folder)
    assert reasons(report) == {"dvc.lock": "missing; run `dvc repro`"}
    page = render_page(report)
    assert "metrics/test.json: dvc.lock: missing; run `dvc repro`" in page
    assert page.count("<section") == 10
    assert "| train.epochs | 3 |" in render_markdown(report)


def test_every_archive_of_a_list_is_shown_and_compared(folder):
    deps = [{"path": "a.zip", "md5": "ab12"}, {"path": "b.zip", "md5": "cd34"}]
    write_train(folder)

    def read_of(archive):
        params = {**PARAMS, "data": {**PARAMS["data"], "archive": archive}}
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        write_lock(folder, "prepare", params=params, deps=deps)
        report = read(folder)
        page, markdown = render_page(report), render_markdown(report)
        return report.run, page, markdown

    both, page, markdown = read_of(["a.zip", "b.zip"])
    one, _, _ = read_of("a.zip")
    assert all(f">{text}</td>" in page for text in ("a.zip, b.zip", "ab12, cd34"))
    assert "cnn on a.zip, b.zip.</p>" in page
    assert "cnn, a.zip, b.zip, " in markdown
    changes = {change.key: (change.before, change.after) for change in compare(both, one).data}
    assert changes["archive"] == ("a.zip", "a.zip, b.zip")
    assert changes["archive, MD5"] == ("ab12", "ab12, cd34")


@pytest.mark.parametrize(
    ("path", "content", "note"),
    [
        ("metrics/test.json", "[1]", "found list; allowed: a mapping"),
        ("plots/confusion.csv", "a,b\n1,2\n", "not what this version writes"),
        ("plots/curves.csv", "epoch,val_acc\n1,x\n", "not what this version writes"),
        ("dvc.lock", "a: b: c", "not YAML"),
        ("params.yaml", "[1, 2]", "allowed: a mapping"),
    ],
)
def test_damage_is_noted_and_the_rest_is_shown(folder, path, content, note):
    write_train(folder)
    write_test(folder)
    (folder / path).write_text(content)
    if path != "dvc.lock":
        write_lock(folder, "prepare", "train", "evaluate")
    report = read(folder)
    assert note in reasons(report)[path]
    assert render_page(report).count("<section") == 10
    assert note.split(";")[0] in render_markdown(report)


def test_values_that_are_no_numbers_are_shown_as_what_they_are(folder):
    write_train(folder)
    write_test(folder, acc="NaN", ece=float("nan"), macro_f1=True)
    curves = folder / "plots" / "curves.csv"
    curves.write_text(curves.read_text().replace("1.1", "inf"))
    write_lock(folder, "prepare", "train", "evaluate")
    report = read(folder)
    page = render_page(report)
    for value in ("&#39;NaN&#39;", "nan", "True", "inf"):
        assert f"not a number: {value}" in page
    blocks = page.split('type="application/json"')[1:]
    assert len(blocks) == 5
    for block in blocks:
        json.loads(block.split(">", 1)[1].split("</script>")[0], parse_constant=pytest.fail)
    assert "| not a number: 'NaN' |" in render_markdown(report)


def test_a_metric_of_an_unknown_name_is_no_markup(folder):
    write_train(folder)
    write_test(folder, **{"@all [x](http://y) |": 1})
    write_lock(folder, "prepare", "train", "evaluate")
    markdown = render_markdown(read(folder, against="workspace"))
    assert "| test.@\u200ball \\[x\\](http:\u200b//y) \\| | 1 | – | 1 | 0 |" in markdown


def test_grouped_test_photos_and_another_monitor_are_told(folder):
    write_train(folder)
    params = {**PARAMS, "train": {**PARAMS["train"], "monitor": "val/macro_f1"}}
    write_lock(folder, "prepare", "train", params=params)
    report = read(folder)
    page, markdown = render_page(report), render_markdown(report)
    for text in (page, markdown):
        assert "The 24 test photos are 12 groups: photos of one group are not independent" in text
    assert "were kept, chosen by val/macro_f1." in page
    assert ", kept epoch chosen by val/macro_f1\n" in markdown
