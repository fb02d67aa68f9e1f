"""The figure of the training curves, and tables that it refuses."""

import numpy as np
import pytest

from fieldguide.core.errors import StoreError
from fieldguide.figures.curves import training_curves

HEADER = "epoch,train_loss,train_acc,val_loss,val_acc,learning_rate,kept"
ROWS = ("1,2.0,0.25,1.5,0.5,0.01,0", "2,1.0,0.5,1.25,0.75,0.02,1", "3,0.5,0.75,1.5,0.8,8e-09,0")
TABLE = "\n".join([HEADER, *ROWS, ""])


@pytest.fixture
def curves_of(tmp_path):
    """Draws a table and returns the figure."""

    def draw(text):
        path = tmp_path / "curves.csv"
        path.write_text(text, encoding="utf-8")
        return training_curves(path)

    return draw


def lines_of(axes):
    """The values of each curve by its label; the mark of the kept epoch has none."""
    return {
        line.get_label(): np.asarray(line.get_ydata()).tolist()
        for line in axes.lines
        if line.get_linestyle() == "-"
    }


def test_every_column_is_drawn_by_epoch(curves_of):
    loss, accuracy, rate = curves_of(TABLE).axes
    assert lines_of(loss) == {"train": [2.0, 1.0, 0.5], "val": [1.5, 1.25, 1.5]}
    assert lines_of(accuracy) == {"train": [0.25, 0.5, 0.75], "val": [0.5, 0.75, 0.8]}
    assert list(lines_of(rate).values()) == [[0.01, 0.02, 8e-09]]
    assert all(line.get_xdata().tolist() == [1, 2, 3] for line in [*loss.lines, *rate.lines])


def test_the_kept_epoch_is_marked_even_if_another_has_a_higher_accuracy(curves_of):
    accuracy = curves_of(TABLE).axes[1]
    assert accuracy.get_title() == "Accuracy; kept: epoch 2 by another metric, val 75.0%"
    (mark,) = [line for line in accuracy.lines if line.get_linestyle() == "--"]
    assert set(mark.get_xdata()) == {2}
    by_accuracy = curves_of(TABLE.replace(",0.8,", ",0.75,")).axes[1]
    assert by_accuracy.get_title() == "Accuracy; kept: epoch 2, val 75.0%"


def test_columns_are_found_by_name(curves_of):
    rows = [line.split(",") for line in TABLE.splitlines()]
    reversed_table = "\n".join(",".join(row[::-1]) for row in rows)
    assert lines_of(curves_of(reversed_table).axes[0])["val"] == [1.5, 1.25, 1.5]


def test_a_training_on_the_validation_photos_has_no_val_curves(curves_of):
    """As train.train_on_val writes it."""
    header = "epoch,train_loss,train_acc,learning_rate,kept"
    figure = curves_of(f"{header}\n1,2,0.25,0.1,0\n2,1,0.5,0.2,1\n")
    loss, accuracy, rate = figure.axes
    assert lines_of(loss) == {"train": [2, 1]}
    assert lines_of(accuracy) == {"train": [0.25, 0.5]}
    assert list(lines_of(rate).values()) == [[0.1, 0.2]]
    assert accuracy.get_title() == "Accuracy; trained on val too, kept: the last epoch"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not enough values"),
        (f"{HEADER}\n", "shorter"),
        (f"{HEADER}\n1,2,0.25\n", "shorter"),
        (f"{TABLE}4,1\n", "shorter"),
        (f"{HEADER}\n1,2,0.25,x,0.5,0.01,1\n", "could not convert"),
        (TABLE.replace(",1\n", ",0\n"), r"found kept \[0.0, 0.0, 0.0\]; allowed: 1 for one epoch"),
        (TABLE.replace(",kept", ",k"), "found columns .*'k'"),
    ],
    ids=["empty", "no epoch", "short line", "two lengths", "text", "none kept", "no column kept"],
)
def test_another_file_is_refused(text, reason, curves_of):
    with pytest.raises(StoreError, match=f"not a table of curves .*{reason}"):
        curves_of(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"none\.csv: not a table of curves .*No such file"):
        training_curves(tmp_path / "none.csv")
