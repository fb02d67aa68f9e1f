"""Copies are found, and each class is divided by the same fraction."""

import hashlib
import random
from collections import Counter

import pytest

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.groups import Group
from fieldguide.prepare.splits import draw_groups, find_copies


def left_out(*photos):
    """Return detail and other row of rows left out of photos given as "digest label split"."""
    digests, labels, splits = zip(*(photo.split() for photo in photos), strict=True)
    found = find_copies([digest.encode() for digest in digests], labels, splits)
    assert {why.reason for why in found.values()} <= {"duplicate"}
    return {row: (why.detail, why.other) for row, why in found.items()}


def digests_of(count, seed=0):
    rng = random.Random(seed)
    return [rng.randbytes(32) for _ in range(count)]


def split(labels, fraction, *, seed=0, key="data.val_fraction", digests=None):
    """Divide photos that are all groups of their own; return the rows on both sides."""
    digests = digests or digests_of(len(labels))
    groups = [Group([row], digest, "") for row, digest in enumerate(digests)]
    draw = draw_groups(groups, labels, fraction, seed=seed, key=key)
    return tuple(
        sorted(row for group in side for row in group.rows) for side in (draw.stay, draw.held_out)
    )


def test_different_photos_all_stay():
    assert left_out("x ant train", "y ant train", "z bee test") == {}


def test_photos_without_a_digest_are_no_copies():
    assert find_copies([b"", b""], ["ant", "bee"], ["train", "test"]) == {}


@pytest.mark.parametrize("other", ["train", "val"])
def test_a_copy_of_a_test_photo_leaves_and_the_test_photo_stays(other):
    photos = [f"x ant {other}", "x ant test", "y ant train"]
    assert left_out(*photos) == {0: ("copy of a test photo", 1)}


def test_a_copy_of_a_test_photo_leaves_even_with_another_label():
    assert left_out("x bee train", "x ant test") == {0: ("copy of a test photo", 1)}


def test_copies_inside_the_test_set_are_not_touched():
    assert left_out("x ant test", "x ant test", "x bee test") == {}


def test_the_first_of_several_training_copies_stays():
    photos = ["y ant train", "x ant train", "x ant train", "x ant train"]
    assert left_out(*photos) == dict.fromkeys((2, 3), ("copy of another photo", 1))


def test_a_validation_photo_stays_and_its_training_copies_leave():
    photos = ["x ant train", "x ant val", "x ant train", "x ant val"]
    assert left_out(*photos) == dict.fromkeys((0, 2, 3), ("copy of another photo", 1))


@pytest.mark.parametrize("splits", [("train", "train"), ("train", "val"), ("val", "val")])
def test_copies_with_different_labels_all_leave(splits):
    photos = [f"x ant {splits[0]}", f"x bee {splits[1]}", "y ant train", f"x ant {splits[1]}"]
    others = {0: 1, 1: 0, 3: 1}  # a copy of another class
    why = "copies in several classes"
    assert left_out(*photos) == {row: (why, other) for row, other in others.items()}


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"),
    [
        (10, 0.2, 2),
        (12, 0.2, 2),  # 2.4
        (13, 0.2, 3),  # 2.6
        (100, 0.01, 1),
        (2, 0.01, 1),  # at least one
        (2, 0.5, 1),
        (3, 0.9, 2),  # never all
    ],
)
def test_the_rounded_fraction_of_each_class_is_held_out(count, fraction, held_out):
    labels = ["ant"] * count + ["bee"] * 20
    stay, drawn = split(labels, fraction)
    assert Counter(labels[row] for row in drawn)["ant"] == held_out
    assert sorted(stay + drawn) == list(range(count + 20))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_seed_repeats_its_draw_and_another_seed_differs(seed):
    def draw(number):
        return split(["a", "b"] * 50, 0.2, seed=number)

    assert draw(seed) == draw(seed)
    assert draw(seed) != draw(7)


def test_every_photo_can_be_drawn():
    drawn = Counter()
    for seed in range(200):
        drawn.update(split(["a"] * 10, 0.2, seed=seed)[1])
    # Each of 10 photos is drawn Binomial(200, 0.2) times: 40 ± 5.7, so within six deviations.
    assert len(drawn) == 10
    assert all(6 <= count <= 74 for count in drawn.values())


def test_a_class_of_one_photo_cannot_be_split():
    with pytest.raises(
        ArchiveError,
        match=r"class 'bee': 1 usable photo left to split by data\.val_fraction 0\.2; allowed: two",
    ):
        split(["ant", "ant", "bee"], 0.2)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize(("photos", "fraction", "count"), [(2, 0.5, 1), (7, 0.2, 1), (90, 0.3, 27)])
def test_the_digests_with_the_smallest_keyed_hashes_are_held_out(photos, fraction, count, seed):
    _, held_out = split(["ant"] * photos, fraction, seed=seed, key="data.x")
    hashes = [
        hashlib.sha256(f"{seed} data.x ".encode() + digest).hexdigest()
        for digest in digests_of(photos)
    ]
    below = [sum(other < mine for other in hashes) for mine in hashes]
    assert held_out == [row for row in range(photos) if below[row] < count]


def test_another_key_is_another_draw():
    """Otherwise the test photos would also be the first to be drawn for validation."""
    labels = ["ant"] * 200
    val = split(labels, 0.5, key="data.val_fraction")[1]
    test = split(labels, 0.5, key="data.test_fraction")[1]
    # If the draws are independent, 50 ± 3.5 of 100 are in both (hypergeometric distribution).
    assert 29 <= len(set(val) & set(test)) <= 71


def test_the_order_of_rows_and_the_other_classes_do_not_matter():
    digests = digests_of(40)
    labels = ["ant", "bee"] * 20

    def drawn(rows):
        chosen = [digests[row] for row in rows]
        _, held_out = split([labels[row] for row in rows], 0.3, seed=1, digests=chosen)
        return {rows[k] for k in held_out}

    whole = drawn(range(40))
    assert drawn(range(39, -1, -1)) == whole
    assert drawn(range(0, 40, 2)) == {row for row in whole if labels[row] == "ant"}


def test_added_photos_move_few_of_the_old_ones():
    """From 1,000 photos to 1,100, only photos near the border move."""
    digests = digests_of(1100)
    before, after = (set(split(["ant"] * n, 0.2, digests=digests[:n])[1]) for n in (1000, 1100))
    assert (len(before), len(after)) == (200, 220)
    # 20 ± 4 of the 100 new photos are held out; the difference to 20 moves old photos.
    new = sum(row >= 1000 for row in after)
    moved = before ^ {row for row in after if row < 1000}
    assert len(moved) == abs(20 - new) <= 24
