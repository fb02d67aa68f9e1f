"""The counts that `prepare` prints, and writes for DVC."""

import csv
import json

import pytest

from fieldguide.prepare.counts import write_counts
from fieldguide.prepare.prepare import LeftOut, Prepared

COUNTS = {
    "train": {"ant": 1200, "bee[red]": 8},
    "val": {"ant": 300, "bee[red]": 2},
    "test": {"ant": 5, "bee[red]": 0},
}
LEFT_OUT = [
    LeftOut("train/a.jpg", "unreadable", "the file is empty"),
    LeftOut("train/[b].jpg", "unreadable", "truncated"),
    LeftOut("train/c.jpg", "too small", "9×9 pixels"),
    LeftOut("d.jpg", "misplaced", "outside the class folders that are read"),
]


@pytest.fixture
def written(tmp_path, capsys):
    """Write counts; return the metrics, the rows of both plots, and what was printed."""

    def write(left_out=LEFT_OUT, other_files=3):
        prepared = Prepared(["ant", "bee[red]"], COUNTS, left_out, other_files)
        metrics = tmp_path / "metrics" / "prepare.json"
        plots = [tmp_path / "plots" / name for name in ("classes.csv", "left_out.csv")]
        write_counts(prepared, metrics=metrics, classes=plots[0], left_out=plots[1])
        rows = []
        for plot in plots:
            with plot.open(encoding="utf-8", newline="") as file:
                rows.append(list(csv.reader(file)))
        return json.loads(metrics.read_text(encoding="utf-8")), *rows, capsys.readouterr().out

    return write


def test_the_metrics_count_the_photos_of_each_split_and_those_left_out(written):
    metrics, *_ = written()
    assert metrics == {"photos": {"train": 1208, "val": 302, "test": 5, "left_out": 4}}


def test_one_plot_has_a_row_for_each_class_and_split(written):
    _, classes, _, _ = written()
    assert classes == [
        ["class", "split", "photos"],
        ["ant", "train", "1200"],
        ["ant", "val", "300"],
        ["ant", "test", "5"],
        ["bee[red]", "train", "8"],
        ["bee[red]", "val", "2"],
        ["bee[red]", "test", "0"],
    ]


def test_the_other_plot_has_a_row_for_each_reason(written):
    _, _, left_out, _ = written()
    assert left_out == [
        ["reason", "photos"],
        ["unreadable", "2"],
        ["too small", "1"],
        ["too large", "0"],
        ["duplicate", "0"],
        ["misplaced", "1"],
    ]


def test_the_table_shows_all_classes_and_the_totals(written):
    *_, text = written()
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "train", "val", "test"] in lines
    assert ["ant", "1,200", "300", "5"] in lines
    assert ["bee[red]", "8", "2", "0"] in lines
    assert ["all", "1,208", "302", "5"] in lines


def test_photos_left_out_are_listed(written):
    *_, text = written()
    joined = " ".join(text.split())  # long lines are wrapped
    assert (
        "left out: 2 unreadable, 1 too small, 0 too large, 0 duplicate, 1 misplaced; 3 other files"
        in joined
    )
    assert "train/[b].jpg: unreadable (truncated)" in text
    assert "dataset.json" not in text


def test_other_files_are_mentioned_only_if_there_are_any(written):
    *_, text = written(left_out=[], other_files=0)
    assert "left out: 0 unreadable, 0 too small, 0 too large, 0 duplicate, 0 misplaced\n" in text
    assert "other files" not in text


def test_only_the_first_ten_photos_left_out_are_listed(written):
    *_, text = written([LeftOut(f"{k:02d}.jpg", "too small", "9×9") for k in range(11)])
    assert "09.jpg" in text
    assert "10.jpg" not in text
    assert "the rest is in data/prepared/dataset.json" in text


def test_a_name_cannot_change_the_terminal(written):
    *_, text = written([LeftOut("a/\x1b[31m\x1b]0;pwn\x07.png", "unreadable", "broken")])
    assert "\x1b" not in text
    assert "a/\ufffd[31m\ufffd]0;pwn\ufffd.png" in text
