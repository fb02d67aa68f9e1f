"""The path of a photo decides its class and its split."""

import re
import unicodedata

import pytest

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare.layout import read_layout
from fieldguide.prepare.left_out import LeftOut
from fieldguide.prepare.member import Member
from fieldguide.prepare.names import PHOTO_SUFFIXES

FLAT = ["ant/1.jpg", "ant/2.jpg", "bee/1.jpg", "bee/2.jpg"]


def layout_of(*names):
    members = [Member(name, 1, place) for place, name in enumerate(names)]
    return read_layout("photos.zip", members)


def places_of(*names):
    """Return {name: "split class"} of each photo."""
    return {photo.member.name: f"{photo.split} {photo.label}" for photo in layout_of(*names).photos}


def left_out_of(*names):
    """Return {name: "class reason: detail"} of each file left out."""
    items = layout_of(*names).left_out
    return {item.file: f"{item.label} {item.reason}: {item.detail}" for item in items}


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


@pytest.mark.parametrize("top", ["", "nature_12K/", "a/b/"])
@pytest.mark.parametrize("names", [FLAT, [*under("train"), *under("val")]])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_picture_above_or_beside_the_folders_is_named_and_changes_nothing(top, names, level):
    folders = top.split("/")[:level]
    stray = "/".join(name for name in [*folders, "cover.jpg"] if name)
    names = [f"{top}{name}" for name in names]
    found = layout_of(*names, stray)
    assert found.left_out == [LeftOut(stray, "", "misplaced", "outside the class folders")]
    assert found._replace(left_out=[]) == layout_of(*names)


def test_photos_without_a_class_or_split_are_misplaced():
    names = ["train/1.jpg", "extra/ant/1.jpg"]
    found = layout_of(*under("train"), *under("test"), *names)
    assert sorted(item.file for item in found.left_out) == sorted(names)


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


def test_files_that_are_not_photos_are_named_with_class_and_suffix():
    others = ["README.md", "ant/notes.txt", "ant/photo.jpg.part", "bee/IMG_1", "docs/x.pdf"]
    assert left_out_of(*FLAT, *others) == {
        "README.md": " not a photo: .md",
        "ant/notes.txt": "ant not a photo: .txt",
        "ant/photo.jpg.part": "ant not a photo: .part",
        "bee/IMG_1": "bee not a photo: no suffix",
        "docs/x.pdf": "docs not a photo: .pdf",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dog/1.CR2", "dog/2.cr2", "dog/3.xmp"],
            r"dog \(train\): 3 files \(2 \.cr2, 1 \.xmp\), such",
        ),
        (["dog/IMG_1", "dog/IMG_2"], r"dog \(train\): 2 files \(2 no suffix\), such as dog/IMG_1"),
        (["dog/deep/er/1.jp2"], r"dog \(train\): 1 file \(1 \.jp2\), such as dog/deep/er/1\.jp2"),
        (["dog/dog.zip", "cow/1.mov"], r"2 class folders without .*\n  cow .*\n  dog "),
    ],
)
@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_class_folder_without_any_photo_is_refused(names, message, top):
    with pytest.raises(ArchiveError, match=r"allowed: \.avif .*convert the files") as caught:
        layout_of(*(f"{top}{name}" for name in [*FLAT, *names]))
    assert re.search(message.replace("such as ", f"such as {top}"), str(caught.value))


def test_a_class_of_a_split_without_any_photo_is_refused():
    with pytest.raises(ArchiveError, match=r"bee \(test\): 1 file \(1 \.nef\)"):
        layout_of(*under("train"), "val/ant/1.jpg", "val/bee/1.nef")


def test_the_class_that_vanishes_may_be_all_but_one():
    with pytest.raises(ArchiveError, match=r"dog \(train\): 1 file"):
        layout_of("ant/a/1.jpg", "ant/b/1.jpg", "dog/1.dng")


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
        (["ant/1.txt", "a.csv"], r"no photo found among 2 files \(1 \.csv, 1 \.txt\); allowed"),
        (["ant/1.jpg", "ant/2.jpg"], r"found 1 class \['ant'\]; allowed: two or more"),
        (["train/ant/1.jpg", "val/ant/1.jpg"], r"found 1 class \['ant'\]"),
        (["1.jpg", "2.jpg"], r"found 0 classes \[\] \(1\.jpg is in none\); allowed: two"),
        (
            ["a/images/ant/1.jpg", "a/images/ant/2.jpg", "a/readme.png"],
            r"found 1 class \['ant'\] \(a/readme\.png is in none\); allowed: two",
        ),
        (
            [*under("train"), *under("val"), *(f"ant/{k}.jpg" for k in range(8))],
            r"8 of 16 photos, such as ant/0\.jpg, are outside the class folders; allowed",
        ),
        (
            [*under("train"), "val/cow/1.jpg", "val/cow/2.jpg"],
            "class 'cow' has 2 photos for validation or test and none for training; .*: ant, bee",
        ),
        ([*under("train"), "val/Ant/1.jpg"], "class 'Ant' has 1 photo for validation"),
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
