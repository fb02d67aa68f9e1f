"""The path of a photo decides its class and its split."""

import unicodedata

import pytest

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.archive import Member
from fieldguide.prepare.layout import PHOTO_SUFFIXES, read_layout

FLAT = ["ant/1.jpg", "ant/2.jpg", "bee/1.jpg", "bee/2.jpg"]


def layout_of(*names):
    members = [Member(name, 1, place) for place, name in enumerate(names)]
    return read_layout("photos.zip", members)


def places_of(*names):
    """Return {name: "split class"} of each photo."""
    return {photo.member.name: f"{photo.split} {photo.label}" for photo in layout_of(*names).photos}


def under(folder, names=FLAT):
    return [f"{folder}/{name}" for name in names]


def test_without_split_folders_all_photos_are_for_training():
    assert places_of(*FLAT) == {
        "ant/1.jpg": "train ant",
        "ant/2.jpg": "train ant",
        "bee/1.jpg": "train bee",
        "bee/2.jpg": "train bee",
    }


@pytest.mark.parametrize("train", ["train", "training", "Train", "TRAIN"])
@pytest.mark.parametrize("second", ["val", "valid", "validation", "test", "testing", "Test"])
def test_the_only_other_folder_is_the_test_set(train, second):
    found = places_of(*under(train), *under(second))
    assert found == {name: f"train {name.split('/')[1]}" for name in under(train)} | {
        name: f"test {name.split('/')[1]}" for name in under(second)
    }


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_three_folders_are_three_splits(val):
    found = places_of(*under("train"), *under(val), *under("test"))
    assert found["train/bee/1.jpg"] == "train bee"
    assert found[f"{val}/bee/1.jpg"] == "val bee"
    assert found["test/bee/1.jpg"] == "test bee"


@pytest.mark.parametrize("top", [".", "nature_12K", "a/b c", "inaturalist/train"])
def test_folders_that_all_photos_share_are_ignored(top):
    found = layout_of(*under(f"{top}/train"), *under(f"{top}/val"))
    assert found.classes == ["ant", "bee"]
    assert sorted({photo.split for photo in found.photos}) == ["test", "train"]
    assert layout_of(*under(top)).classes == ["ant", "bee"]


@pytest.mark.parametrize("top", ["", "nature_12K/"])
def test_a_photo_beside_the_split_folders_is_misplaced(top):
    names = [f"{top}{name}" for name in [*under("train"), *under("val")]]
    found = layout_of(*names, f"{top}cover.jpg")
    assert found.misplaced == [f"{top}cover.jpg"]
    assert found.classes == ["ant", "bee"]
    assert len(found.photos) == 8


def test_a_photo_beside_the_class_folders_is_misplaced():
    found = layout_of(*FLAT, "cover.jpg")
    assert found.misplaced == ["cover.jpg"]
    assert found.classes == ["ant", "bee"]


def test_photos_without_a_class_or_split_are_misplaced():
    names = ["train/1.jpg", "extra/ant/1.jpg"]
    found = layout_of(*under("train"), *under("test"), *names)
    assert sorted(found.misplaced) == sorted(names)


def test_folders_inside_a_class_belong_to_it():
    found = places_of("ant/2024/may/1.jpg", "ant/1.jpg", "bee/2025/2.jpg")
    assert found == {
        "ant/2024/may/1.jpg": "train ant",
        "ant/1.jpg": "train ant",
        "bee/2025/2.jpg": "train bee",
    }


def test_a_class_may_be_named_train():
    """CIFAR-100 and Pascal VOC have such a class."""
    assert places_of("train/1.jpg", "bus/1.jpg", "train/2.jpg") == {
        "train/1.jpg": "train train",
        "bus/1.jpg": "train bus",
        "train/2.jpg": "train train",
    }


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "ant/.DS_Store",
        "ant/._1.jpg",
        "__MACOSX/ant/._1.jpg",
        "__MACOSX/ant/1.jpg",
        ".git/ant/1.jpg",
        "ant/.thumbnails/1.jpg",
        "ant/.jpg",
    ],
)
def test_hidden_files_are_ignored(name):
    assert layout_of(*FLAT, name) == layout_of(*FLAT)


def test_other_files_are_counted():
    assert layout_of(*FLAT, "README.md", "ant/notes.txt", "ant/photo.jpg.part").other_files == 3


@pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
def test_the_case_of_a_suffix_does_not_matter(suffix):
    names = [f"ant/1{suffix}", f"bee/1{suffix.upper()}", f"bee/2{suffix.title()}"]
    assert len(layout_of(*names).photos) == 3


def test_class_names_keep_spaces_dots_and_letters_of_any_script():
    names = ["Ära 1/a b.c.jpg", "日本/写真.jpg", "v1.0/x y.jpg"]
    assert layout_of(*names).classes == sorted(["Ära 1", "日本", "v1.0"])


def test_both_encodings_of_an_accent_are_one_class():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    found = layout_of(f"train/{composed}/1.jpg", "train/ant/1.jpg", f"val/{decomposed}/1.jpg")
    assert found.classes == ["ant", composed]
    assert {photo.label for photo in found.photos} == {"ant", composed}


def test_photos_are_sorted_by_name():
    assert [photo.member.name for photo in layout_of(*reversed(FLAT)).photos] == FLAT


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"photos\.zip: no photo found among 0 files; allowed: \.avif .*\.webp"),
        (["ant/1.txt", "a.csv"], "no photo found among 2 files"),
        (["__MACOSX/ant/1.jpg"], "no photo found among 1 files"),
        (["ant/1.jpg", "ant/2.jpg"], r"found 1 class folders \['ant'\]; allowed: two or more"),
        (["train/ant/1.jpg", "val/ant/1.jpg"], r"found 1 class folders \['ant'\]"),
        (["1.jpg", "2.jpg"], r"found 0 class folders \[\] \(1\.jpg is in none\); allowed: two"),
        (
            ["a/images/ant/1.jpg", "a/images/bee/1.jpg", "a/readme.png"],
            r"found 1 class folders \['images'\] \(a/readme\.png is in none\); allowed: two",
        ),
        (
            [*under("train"), *under("val"), *(f"ant/{k}.jpg" for k in range(8))],
            r"8 of 16 photos, such as ant/0\.jpg, are outside the class folders; allowed",
        ),
        (
            [*under("train"), "val/cow/1.jpg", "val/cow/2.jpg"],
            "class 'cow' has 2 photos outside the training folder and none in it; .*: ant, bee",
        ),
        ([*under("train"), "val/Ant/1.jpg"], "class 'Ant' has 1 photos outside"),
    ],
)
def test_paths_that_are_no_data_set_are_refused(names, message):
    with pytest.raises(ArchiveError, match=message):
        layout_of(*names)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([*under("test"), *under("val")], "test, val"),
        ([*under("seg_train/seg_train"), *under("seg_test/seg_test")], "seg_test, seg_train"),
        ([*under("train_images"), *under("Test-Images")], "Test-Images, train_images"),
        ([*under("d/train"), *under("d/val"), "docs/x/1.jpg"], "d/train, d/val"),
    ],
)
def test_splits_in_place_of_classes_are_refused(names, shown):
    """A classifier that tells training photos from test photos would look like a good one."""
    with pytest.raises(ArchiveError, match=f"{shown} look like splits, not classes; allowed"):
        layout_of(*names)


def test_a_word_that_contains_the_name_of_a_split_is_a_class():
    assert layout_of("trainer/1.jpg", "trainer/2.jpg", "latest/1.jpg", "latest/2.jpg").classes
