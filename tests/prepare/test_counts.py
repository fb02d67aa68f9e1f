"""The counts that `prepare` prints, and writes for DVC."""

import csv
import json

import pytest

from fieldguide.prepare.counts import write_counts
from fieldguide.prepare.left_out import LeftOut
from fieldguide.prepare.prepare import Counts, Prepared

COUNTS = {
    "train": {"ant": Counts(1200, 1200, 0), "bee[red]": Counts(8, 8, 0)},
    "val": {"ant": Counts(300, 300, 0), "bee[red]": Counts(2, 2, 0)},
    "test": {"ant": Counts(5, 5, 0), "bee[red]": Counts(0, 0, 0)},
}
LEFT_OUT = [
    LeftOut("d.jpg", "", "misplaced", "outside the class folders"),
    LeftOut("a.jpg", "ant", "unreadable", "the file is empty"),
    LeftOut("[b].jpg", "ant", "unreadable", "truncated"),
    LeftOut("train/c.jpg", "bee[red]", "too small", "9×9 pixels"),
    *(LeftOut(f"a/{k}.cr2", "ant", "not a photo", ".cr2") for k in range(4)),
    LeftOut("train/ant/x", "ant", "not a photo", "no suffix"),
]


@pytest.fixture
def written(tmp_path, capsys):
    """Write counts; return the metrics, the rows of both plots, and what was printed."""

    def write(left_out=LEFT_OUT, warnings=(), counts=COUNTS):
        totals = {
            split: Counts(*map(sum, zip(*of_class.values(), strict=True)))
            for split, of_class in counts.items()
        }
        prepared = Prepared(["ant", "bee[red]"], counts, totals, left_out, list(warnings))
        metrics = tmp_path / "metrics" / "prepare.json"
        plots = [tmp_path / "plots" / name for name in ("classes.csv", "left_out.csv")]
        write_counts(prepared, metrics=metrics, classes=plots[0], left_out=plots[1])
        rows = []
        for plot in plots:
            with plot.open(encoding="utf-8", newline="") as file:
                rows.append(list(csv.reader(file)))
        write.stdout, write.stderr = capsys.readouterr()
        return json.loads(metrics.read_text(encoding="utf-8")), *rows, write.stdout

    return write


def test_the_metrics_count_the_photos_of_each_split_and_those_left_out(written):
    metrics, *_ = written()
    assert metrics == {"photos": {"train": 1208, "val": 302, "test": 5, "left_out": 4}}


def test_one_plot_has_a_row_for_each_class_and_split(written):
    _, classes, _, _ = written()
    assert classes == [
        ["class", "split", "photos", "groups", "near_copies"],
        ["ant", "train", "1200", "1200", "0"],
        ["ant", "val", "300", "300", "0"],
        ["ant", "test", "5", "5", "0"],
        ["bee[red]", "train", "8", "8", "0"],
        ["bee[red]", "val", "2", "2", "0"],
        ["bee[red]", "test", "0", "0", "0"],
    ]


def test_the_other_plot_has_a_row_for_each_reason(written):
    _, _, left_out, _ = written()
    assert left_out == [
        ["reason", "files"],
        ["unreadable", "2"],
        ["too small", "1"],
        ["too large", "0"],
        ["duplicate", "0"],
        ["near-copy", "0"],
        ["group in two splits", "0"],
        ["rare class", "0"],
        ["misplaced", "1"],
        ["no class", "0"],
        ["no such file", "0"],
        ["not a photo", "5"],
    ]


def test_the_table_shows_all_classes_and_the_totals(written):
    *_, text = written()
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "train", "val", "test"] in lines
    assert ["ant", "1,200", "300", "5"] in lines
    assert ["bee[red]", "8", "2", "0"] in lines
    assert ["all", "1,208", "302", "5"] in lines


def test_groups_and_near_copies_are_shown_where_there_are_any(written):
    counts = {**COUNTS, "val": {"ant": Counts(300, 20, 4), "bee[red]": Counts(2, 1, 0)}}
    *_, text = written(counts=counts)
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "train", "val", "test", "train/val/test", "train/val/test"] in lines
    assert ["ant", "1,200", "300", "5", "1,200/20/5", "0/4/0"] in lines
    assert ["all", "1,208", "302", "5", "1,208/21/5", "0/4/0"] in lines


def test_files_left_out_are_counted_by_reason_class_and_suffix(written):
    *_, text = written()
    assert text.partition("9 files left out")[2].splitlines() == [
        ", named in data/prepared/left_out.csv:",
        "       2  unreadable   ant       a.jpg (the file is empty), [b].jpg (truncated)",
        "       1  too small    bee[red]  9×9 pixels: train/c.jpg",
        "       1  misplaced    -         outside the class folders: d.jpg",
        "       4  not a photo  ant       .cr2: a/0.cr2, a/1.cr2, a/2.cr2, ...",
        "       1  not a photo  ant       no suffix: train/ant/x",
    ]


def test_nothing_left_out_is_said(written):
    *_, text = written(left_out=[])
    assert text.endswith("no file left out\n")


def test_many_groups_are_cut(written):
    *_, text = written([LeftOut("a", f"class {k}", "too small", "9×9") for k in range(31)])
    assert "class 29" not in text.splitlines()[-1]
    assert text.endswith("and 1 more reasons and classes\n")


def test_warnings_go_to_stderr(written):
    written(warnings=["a.zip: 2 names\x1b"])
    assert written.stderr == "warning: a.zip: 2 names\ufffd\n"


def test_a_name_cannot_change_the_terminal(written):
    *_, text = written([LeftOut("a/\x1b[31m\x1b]0;pwn\x07.png", "a\x1b", "unreadable", "broken")])
    assert "\x1b" not in text
    assert "a/\ufffd[31m\ufffd]0;pwn\ufffd.png" in text
