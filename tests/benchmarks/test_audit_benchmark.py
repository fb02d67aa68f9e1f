"""benchmarks/audit.py: planting, the figures of an order, and the tables of docs/audit.md."""

import zipfile
from pathlib import Path

import audit
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_labels_are_planted_at_random_and_between_the_pair(tmp_path):
    planted = audit.plant_labels(ROOT / "data/sample.zip", tmp_path / "new.zip", seed=0)
    assert len(planted.random) == len(planted.pair) == 250
    with (
        zipfile.ZipFile(ROOT / "data/sample.zip") as old,
        zipfile.ZipFile(tmp_path / "new.zip") as new,
    ):
        names = set(old.namelist()), set(new.namelist())
        class_of = {
            name.rpartition("/")[2]: name.split("/")[2] for name in names[0] if "/train/" in name
        }
    changed = names[1] - names[0]
    assert changed == planted.random | planted.pair
    for name in changed:
        own, new_class = class_of[name.rpartition("/")[2][1:]], name.split("/")[2]
        assert own != new_class
        assert name in planted.random or {own, new_class} == set(audit.PAIR)


def test_precision_and_recall_of_an_order():
    planted = audit.Planted({"a"}, {"b", "c"})
    doubtful = np.array([True, True, False, True])
    found = audit.judge_order(
        doubtful, np.array([0.9, 0.2, 0.99, 0.3]), ["a", "b", "c", "d"], planted
    )
    assert found["precision"] == pytest.approx(2 / 3)
    assert (found["recall_random"], found["recall_pair"]) == (1, 0.5)
    assert found["precision_of_first"]["3"] == pytest.approx(2 / 3)  # a, d, b; c is not doubtful


@pytest.mark.parametrize("table", [audit.table, audit.photo_table])
def test_the_page_has_the_tables_of_the_rows(table):
    lines = table(audit.read_rows(audit.ROWS))
    assert "\n".join(lines) in (ROOT / "docs/audit.md").read_text(encoding="utf-8")
