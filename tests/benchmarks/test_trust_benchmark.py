"""The collections of benchmarks/trust.py, and its tables."""

import zipfile

import pytest
import trust
from recipe import params_of

ROW = {"val_photos": 1000, "test_acc": 0.7, "photos": 200, "accepted": 100, "right": 96}
LOSSES = {"nll_before": 0.9, "nll": 0.8, "ece_before": 0.05, "ece": 0.03}


def names_in(path):
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_two_classes_leave_the_sample_with_all_their_photos(tmp_path):
    kept, unseen = tmp_path / "kept.zip", tmp_path / "unseen.zip"
    left_out = trust.without_two(kept, unseen, seed=0)
    assert len(left_out) == 2
    files = {name for name in names_in(trust.SAMPLE) if not name.endswith("/")}
    assert names_in(kept) | names_in(unseen) == files
    assert {name.split("/")[2] for name in names_in(unseen)} == set(left_out)
    assert not {name.split("/")[2] for name in names_in(kept)} & set(left_out)
    assert trust.without_two(kept, unseen, seed=1) != left_out


@pytest.mark.parametrize("name", trust.COLLECTIONS)
def test_the_params_of_every_collection_are_allowed(name):
    collection = trust.COLLECTIONS[name]
    params_of(collection.size, collection.changes)


def test_precision_is_shown_for_each_seed_and_for_the_photos_of_all():
    rows = [ROW | LOSSES | {"collection": "sample", "seed": seed} for seed in (1, 0)]
    rows[0] |= {"accepted": 0, "right": 0}
    cells = "sample | 1,000 | 70.0 ± 0.0 | 0.900 → 0.800 | 5.0 → 3.0"
    line = f"| {cells} | 96.0, none accepted | 96.0 | 25.0 ± 35.4 |"
    assert trust.table(rows).splitlines()[2:] == [line]


def test_unseen_classes_are_beside_known_ones():
    unseen = {"unseen": ["cat", "ship"], "unseen_photos": 400, "unseen_accepted": 30}
    row = ROW | unseen | {"collection": "sample without two classes", "seed": 0}
    assert trust.unseen_table([row]).splitlines()[2:] == ["| 0 | cat, ship | 92.5 | 50.0 |"]
