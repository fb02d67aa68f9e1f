"""Copies are found and classes are divided exactly."""

from collections import Counter

import pytest
from sklearn.model_selection import train_test_split

from fieldguide.data.splits import find_copies, stratified_split
from fieldguide.errors import ArchiveError


def left_out(*photos):
    """Rows left out of photos given as "digest label part"."""
    digests, labels, parts = zip(*(photo.split() for photo in photos), strict=True)
    return find_copies([digest.encode() for digest in digests], labels, parts)


def test_different_photos_all_stay():
    assert left_out("x ant train", "y ant train", "z bee test") == {}


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_copy_of_a_test_photo_leaves_and_the_test_photo_stays(part):
    photos = [f"x ant {part}", "x ant test", "y ant train"]
    assert left_out(*photos) == {0: "copy of a test photo"}


def test_a_copy_of_a_test_photo_leaves_even_with_another_label():
    assert left_out("x bee train", "x ant test") == {0: "copy of a test photo"}


def test_copies_inside_the_test_set_are_not_touched():
    assert left_out("x ant test", "x ant test", "x bee test") == {}


def test_of_copies_in_training_the_first_stays():
    photos = ["y ant train", "x ant train", "x ant train", "x ant train"]
    assert left_out(*photos) == {2: "copy of another photo", 3: "copy of another photo"}


def test_a_validation_photo_stays_before_its_copies_in_training():
    photos = ["x ant train", "x ant val", "x ant train", "x ant val"]
    assert left_out(*photos) == dict.fromkeys((0, 2, 3), "copy of another photo")


@pytest.mark.parametrize("parts", [("train", "train"), ("train", "val"), ("val", "val")])
def test_copies_with_different_labels_all_leave(parts):
    photos = [f"x ant {parts[0]}", f"x bee {parts[1]}", "y ant train"]
    assert left_out(*photos) == dict.fromkeys((0, 1), "copies in several classes")


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
def test_each_class_gives_its_rounded_share(count, fraction, held_out):
    labels = ["ant"] * count + ["bee"] * 20
    stay, drawn = stratified_split(labels, fraction, seed=0, key="data.val_fraction")
    assert Counter(labels[row] for row in drawn)["ant"] == held_out
    assert sorted(stay + drawn) == list(range(count + 20))
    assert stay == sorted(stay)
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_seed_always_draws_the_same_and_another_seed_differs(seed):
    def draw(number):
        return stratified_split(["a", "b"] * 50, 0.2, seed=number, key="x")

    assert draw(seed) == draw(seed)
    assert draw(seed) != draw(7)


def test_every_photo_can_be_drawn():
    drawn = Counter()
    for seed in range(200):
        drawn.update(stratified_split(["a"] * 10, 0.2, seed=seed, key="x")[1])
    # Each of 10 photos is drawn Binomial(200, 0.2) times: 40 ± 5.7, so within six deviations.
    assert len(drawn) == 10
    assert all(6 <= count <= 74 for count in drawn.values())


def test_a_class_of_one_photo_cannot_be_split():
    with pytest.raises(
        ArchiveError,
        match=r"class 'bee': 1 usable photo left to split by data\.val_fraction 0\.2; allowed: two",
    ):
        stratified_split(["ant", "ant", "bee"], 0.2, seed=0, key="data.val_fraction")


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize(("photos", "fraction"), [(2, 0.5), (7, 0.2), (500, 0.37)])
def test_who_is_held_out_is_who_scikit_learn_draws(photos, fraction, seed):
    stay, held_out = stratified_split(["ant"] * photos, fraction, seed=seed, key="data.x")
    expected = train_test_split(range(photos), test_size=len(held_out), random_state=seed)
    assert [stay, held_out] == [sorted(rows) for rows in expected]
