"""The long tail of benchmarks/long_tail.py, and its table."""

import zipfile
from collections import Counter

import long_tail
import pytest
from recipe import params_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two archives of seed 0, and one of seed 1."""
    folder = tmp_path_factory.mktemp("tail")

    def make(seed, name):
        long_tail.make_archive(long_tail.SAMPLE, folder / name, seed=seed)
        return folder / name

    return make(0, "0.zip"), make(0, "again.zip"), make(1, "1.zip")


def names_in(path):
    with zipfile.ZipFile(path) as archive:
        return [name.split("/") for name in archive.namelist()]


def test_class_sizes_fall_exponentially_by_a_hundred():
    # 500 × 100^(-k / 9), rounded.
    assert long_tail.sizes(10) == [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]


def test_the_archive_has_these_sizes_and_every_test_photo(made):
    counts = Counter((split, label) for _, split, label, _ in names_in(made[0]))
    train = [count for (split, _), count in sorted(counts.items()) if split == "train"]
    assert train == long_tail.sizes(10)
    assert [count for (split, _), count in counts.items() if split == "val"] == [100] * 10


def test_the_seed_alone_decides_which_photos_it_has(made):
    first, again, other = made
    assert first.read_bytes() == again.read_bytes()
    assert names_in(first) != names_in(other)


@pytest.mark.parametrize("variant", long_tail.VARIANTS)
def test_the_params_of_every_variant_are_allowed(variant):
    params_of(32, long_tail.COMMON | long_tail.VARIANTS[variant])


def test_the_table_has_mean_and_deviation_over_seeds():
    keys = ("test_macro_f1", "val_macro_f1", "val_ece", "test_ece")
    equal = {"variant": "sampler", "recalls": [0.75] * 5 + [0.1, 0.2, 0.2, 0.2, 0.3]}
    rows = [equal | dict.fromkeys(keys, 0.25) | {"test_acc": acc} for acc in (0.5, 0.52)]
    lines = long_tail.table(rows).splitlines()
    cells = ["51.0 ± 1.4", *(f"{value} ± 0.0" for value in ("25.0", "75.0", "20.0", *["25.0"] * 3))]
    assert f"| sampler | {' | '.join(cells)} | 2 |" in lines
    assert f"| none | {'– | ' * 7}0 |" in lines
    assert {line.count("|") for line in lines} == {10}
