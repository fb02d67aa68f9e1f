"""What `prepare` tells people and DVC."""

import csv
import json

import pytest

from fieldguide.prepare.counts import report
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
def reported(tmp_path, capsys):
    """Reports and returns metrics, rows of the plot and what was printed."""

    def make(left_out=LEFT_OUT, other_files=3):
        prepared = Prepared(["ant", "bee[red]"], COUNTS, left_out, other_files)
        metrics, plot = tmp_path / "metrics" / "prepare.json", tmp_path / "plots" / "classes.csv"
        report(prepared, metrics=metrics, plot=plot)
        with plot.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return json.loads(metrics.read_text(encoding="utf-8")), rows, capsys.readouterr().out

    return make


def test_the_metric_counts_photos_classes_and_reasons(reported):
    metrics, _, _ = reported()
    assert metrics == {
        "photos": {"train": 1208, "val": 302, "test": 5},
        "left_out": {
            "unreadable": 2,
            "too_small": 1,
            "too_large": 0,
            "duplicate": 0,
            "misplaced": 1,
        },
        "classes": {
            "ant": {"train": 1200, "val": 300, "test": 5},
            "bee[red]": {"train": 8, "val": 2, "test": 0},
        },
    }


def test_the_plot_has_a_row_for_each_class_and_split(reported):
    _, rows, _ = reported()
    assert [tuple(row.values()) for row in rows] == [
        ("ant", "train", "1200"),
        ("ant", "val", "300"),
        ("ant", "test", "5"),
        ("bee[red]", "train", "8"),
        ("bee[red]", "val", "2"),
        ("bee[red]", "test", "0"),
    ]
    assert list(rows[0]) == ["class", "split", "photos"]


def test_the_table_names_all_classes_as_they_are_and_the_totals(reported):
    _, _, text = reported()
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "train", "val", "test"] in lines
    assert ["ant", "1,200", "300", "5"] in lines
    assert ["bee[red]", "8", "2", "0"] in lines
    assert ["all", "1,208", "302", "5"] in lines


def test_what_was_left_out_is_listed_as_it_is(reported):
    _, _, text = reported()
    joined = " ".join(text.split())  # long lines are wrapped
    assert (
        "left out: 2 unreadable, 1 too small, 0 too large, 0 duplicate, 1 misplaced; 3 other files"
        in joined
    )
    assert "train/[b].jpg: unreadable (truncated)" in text
    assert "dataset.json" not in text


def test_without_other_files_none_are_mentioned(reported):
    _, _, text = reported(left_out=[], other_files=0)
    assert "left out: 0 unreadable, 0 too small, 0 too large, 0 duplicate, 0 misplaced\n" in text
    assert "other files" not in text


def test_of_many_the_first_ten_are_listed(reported):
    _, _, text = reported([LeftOut(f"{k:02d}.jpg", "too small", "9×9") for k in range(11)])
    assert "09.jpg" in text
    assert "10.jpg" not in text
    assert "the rest is in data/prepared/dataset.json" in text


def test_a_name_cannot_steer_the_terminal(reported):
    _, _, text = reported([LeftOut("a/\x1b[31m\x1b]0;pwn\x07.png", "unreadable", "broken")])
    assert "\x1b" not in text
    assert "a/\ufffd[31m\ufffd]0;pwn\ufffd.png" in text
