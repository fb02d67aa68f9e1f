"""Groups stay together in every split, and each class keeps its fraction as well as they allow."""

import csv
import io
import random
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from pydantic import ValidationError

from fieldguide.core.errors import ArchiveError
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare.groups import Group
from fieldguide.prepare.prepare import prepare
from fieldguide.prepare.splits import draw_groups


def grouped(seed, count=60, classes=5):
    """Return random groups of 1 to 12 photos of one to three classes, and the class of each row."""
    rng = random.Random(seed)
    groups, labels = [], []
    for _ in range(count):
        own = rng.sample(range(classes), rng.randint(1, 3))
        rows = list(range(len(labels), len(labels) + rng.randint(1, 12)))
        labels += [f"c{rng.choice(own)}" for _ in rows]
        groups.append(Group(rows, rng.randbytes(32), ""))
    return groups, labels


def draw(groups, labels, fraction=0.2, seed=0):
    return draw_groups(groups, labels, fraction, seed=seed, key="data.val_fraction")


def numbers(groups, labels):
    return Counter(labels[row] for group in groups for row in group.rows)


@pytest.mark.parametrize("seed", range(20))
def test_random_groups_stay_whole_and_every_class_is_near_its_fraction(seed):
    groups, labels = grouped(seed)
    found = draw(groups, labels)
    assert sorted(found.stay + found.held_out) == sorted(groups)
    held, stay = numbers(found.held_out, labels), numbers(found.stay, labels)
    for label, count in Counter(labels).items():
        assert found.wanted[label] == round(count * 0.2)
        assert abs(held[label] - found.wanted[label]) <= 2  # groups have up to 12 photos
        assert stay[label] > 0
    assert draw(groups[::-1], labels) == found  # the order does not matter


def test_hardly_any_other_choice_of_groups_is_nearer():
    rng = random.Random(0)
    gaps = []
    for _ in range(50):
        sizes = [rng.randint(2, 30) for _ in range(20)]
        borders = np.cumsum([0, *sizes]).tolist()
        groups = [Group([*range(a, b)], rng.randbytes(32), "") for a, b in pairwise(borders)]
        found = draw(groups, ["ant"] * sum(sizes))
        sums = {0}  # of every choice of groups
        for size in sizes:
            sums |= {size + other for other in sums}
        best = min(abs(total - found.wanted["ant"]) for total in sums)
        held = sum(len(group.rows) for group in found.held_out)
        gaps.append(abs(held - found.wanted["ant"]) - best)
    assert max(gaps) <= 1
    assert gaps.count(0) >= 45


def test_the_numbers_of_many_classes_are_near_too():
    rng = random.Random(0)
    groups, labels = [], []
    for number in range(2000):
        rows = range(len(labels), len(labels) + rng.randint(1, 20))
        labels += [f"class {number % 200}" for _ in rows]
        groups.append(Group([*rows], rng.randbytes(32), ""))
    found = draw(groups, labels)
    held = numbers(found.held_out, labels)
    gaps = [abs(held[label] - wanted) for label, wanted in found.wanted.items()]
    assert sum(gaps) <= 100  # of 4,200 photos; the best choice of groups reaches about 40
    assert max(gaps) <= 5


@pytest.mark.parametrize("sizes", [[100, *[1] * 15], [80, 10, 10], [50, 50, 50, 50]])
def test_a_large_group_leaves_a_group_for_the_second_draw(sizes):
    borders = np.cumsum([0, *sizes]).tolist()
    labels = ["ant"] * borders[-1]
    for seed in range(4):
        rng = random.Random(seed)
        groups = [Group([*range(a, b)], rng.randbytes(32), "") for a, b in pairwise(borders)]
        first = draw_groups(groups, labels, 0.2, later=0.2, seed=seed, key="test")
        second = draw(first.stay, labels, seed=seed)
        held = [len([row for group in d.held_out for row in group.rows]) for d in (first, second)]
        assert min(held) > 0
        if len(sizes) == 16:
            assert held == [8, 7]  # 23 and 18 of 115 are wanted, and there are 15 to share
        assert second.stay


def test_added_groups_move_few_of_the_old_ones():
    groups, labels = grouped(0, count=440)
    before, after = draw(groups[:400], labels), draw(groups, labels)
    names = {group.key for group in groups[:400]}
    moved = {g.key for g in before.held_out} ^ ({g.key for g in after.held_out} & names)
    # 40 new groups, of which 8 are held out: that many places, and the exchanges at the border.
    assert len(moved) <= 40


def test_a_class_of_one_group_stays_in_training():
    labels = ["ant"] * 10 + ["bee"] * 10
    groups = [Group([*range(5)], b"1", "a"), Group([*range(5, 10)], b"2", "b")]
    groups.append(Group([*range(10, 20)], b"3", "c"))
    found = draw(groups, labels, 0.5)
    assert numbers(found.held_out, labels) == {"ant": 5}


@pytest.fixture
def run(tmp_path, make_params, pack, monkeypatch):
    """Prepare {name: bytes}; return {file: (split, class)}, and keep what was said."""
    monkeypatch.chdir(tmp_path)

    def go(files, **changes):
        archive = pack(tmp_path / "photos.zip", files)
        data = {"archive": str(archive), "image_size": 32, **changes}
        go.prepared = prepare(make_params(data=data, model={"conv_layers": 2}).data, tmp_path / "p")
        found = {}
        for split in SPLITS:
            store = Store(tmp_path / "p").split(split)
            for source, label in zip(store.sources, store.labels, strict=True):
                found[source] = (split, Store(tmp_path / "p").classes[label])
        with (tmp_path / "p" / "groups.csv").open(encoding="utf-8") as file:
            go.groups = list(csv.DictReader(file))
        go.left_out = {item.file: f"{item.reason}: {item.detail}" for item in go.prepared.left_out}
        return found

    return go


def bursts_of(make_photos, count=12, frames=5):
    """Return photos of two classes in bursts: ant/b03_02.png."""
    photos = make_photos(classes=("ant", "bee"), each=count * frames)
    return {
        f"{label}/b{k // frames:02}_{k % frames:02}.png": data
        for label in ("ant", "bee")
        for k, (name, data) in enumerate(
            (name, data) for name, data in photos.items() if name.startswith(label)
        )
    }


class TestGiven:
    """Groups by a pattern or by columns of the table."""

    def test_a_pattern_on_the_path(self, run, make_photos):
        photos = bursts_of(make_photos)
        found = run(
            {**photos, "ant/single.png": make_photos(seed=9)["ant/00.png"]},
            group=r"^(.*?)_\d+\.png",
        )
        splits = defaultdict(set)
        for name, (split, _) in found.items():
            splits[name.rpartition("_")[0] or name].add(split)
        assert all(len(one) == 1 for one in splits.values())
        assert [len(splits[f"{label}/b{k:02}"]) for label in ("ant", "bee") for k in range(12)] == [
            1
        ] * 24
        assert len(run.groups) == 120
        assert run.groups[0] == {
            "group": "ant/b00",
            "split": found["ant/b00_00.png"][0],
            "class": "ant",
            "file": "ant/b00_00.png",
            "near_copy": "0",
        }
        assert run.prepared.counts["test"]["bee"] == (10, 2, 0)
        assert run.prepared.warnings[0] == (
            "1 of 121 photos do not match data.group, such as ant/single.png; each of them is a "
            "group of its own"
        )

    def test_an_empty_group_is_none(self, run, make_photos, tmp_path):
        photos = make_photos(classes=("ant", "bee"), each=20)
        rows = [
            f"{name},{name[:3]},{'' if k % 2 else f's{k}'},1\n" for k, name in enumerate(photos)
        ]
        (tmp_path / "t.csv").write_text("file,label,site,seq\n" + "".join(rows))
        run(photos, labels="t.csv", group=["site", "seq"])
        assert run.groups == []
        assert run.prepared.warnings[0].startswith("20 of 40 photos have no site, seq, such as")

    def test_columns_of_the_table_across_classes(self, run, make_photos, tmp_path):
        photos = make_photos(classes=("ant", "bee"), each=40)
        rows = [
            f"{name},{name[:3]},site {int(name[4:6]) % 10},s{int(name[4:6]) // 20}\n"
            for name in photos
        ]
        (tmp_path / "t.csv").write_text("file,label,site,seq\n" + "".join(rows))
        found = run(photos, labels="t.csv", group=["Site", "seq"])
        splits = defaultdict(set)
        for name, (split, _) in found.items():
            splits[int(name[4:6]) % 10, int(name[4:6]) // 20].add(split)
        assert len(splits) == 20
        assert all(len(one) == 1 for one in splits.values())
        # Of 40 photos of each class 8 are for the test, of the other 32 6 to validate.
        assert run.prepared.totals == {"train": (52, 13, 0), "val": (12, 3, 0), "test": (16, 4, 0)}
        assert {row["group"] for row in run.groups} == {
            f"site {k} / s{n}" for k in range(10) for n in range(2)
        }

    def test_a_group_in_two_splits_of_the_archive_leaves_training(self, run, make_photos):
        photos = {f"train/{name}": data for name, data in bursts_of(make_photos).items()}
        test = make_photos("test", classes=("ant", "bee"), each=3, seed=5)
        test["test/bee/b03_99.png"] = test.pop("test/ant/00.png")
        found = run({**photos, **test}, group=r"^(.*?)_\d+\.png")
        lost = {name for name in photos if "/bee/b03_" in name}
        assert set(run.left_out) == lost
        assert run.left_out["train/bee/b03_00.png"] == (
            "group in two splits: its group bee/b03 is in the archive's test split"
        )
        assert {name for name, (split, _) in found.items() if split == "test"} == set(test)
        assert run.prepared.warnings[1] == (
            "groups that are in two splits of the archive: 1 (bee/b03); photos that training or "
            "validation loses: 5"
        )

    def test_large_groups_and_deviations_are_said(self, run, make_photos):
        photos = make_photos(classes=("ant", "bee", "cow"), each=10)
        named = {}
        for name, data in photos.items():
            label, number = name[:3], int(name[4:6])
            group = {
                "ant": "x",
                "bee": "y" if number < 6 else f"z{number}",
                "cow": f"c{number // 5}",
            }
            named[f"{label}/{group[label]}-{number}.png"] = data
        found = run(named, group=r"/(.*)-", test_fraction=0.1, val_fraction=0.1)
        (left,) = {name[4:6] for name, place in found.items() if place == ("train", "cow")}
        assert run.prepared.warnings[0] == (
            "groups with half of a class or more: y (6 of 10 photos of bee), c0 (5 of 10 photos of "
            "cow), c1 (5 of 10 photos of cow)"
        )
        assert [line for line in run.prepared.warnings if "only one group" in line] == [
            f"classes with only one group, which data.{split}_fraction cannot divide, so that all "
            f"their photos stay in training: {shown}"
            for split, shown in (("test", "ant (x)"), ("val", f"cow ({left})"))
        ]
        assert (
            "data.test_fraction: whole groups are not the exact fraction of 1 of 2 classes; "
            "photos: cow 5 for 1" in run.prepared.warnings
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"group": "(dog)"},
                r"data.group: \(dog\): all 12 photos do not match data.group, such",
            ),
            (
                {"group": "(ant|bee|crab)/"},
                "no photo can be held out, because each class has only o",
            ),
            (
                {"group": ["sit"], "labels": "t.csv"},
                "t.csv has no column 'sit'; did you mean site?",
            ),
        ],
    )
    def test_groups_that_cannot_be_used_are_refused(
        self, changes, message, run, make_photos, tmp_path
    ):
        rows = [f"{name},{name[:3]},a\n" for name in make_photos()]
        (tmp_path / "t.csv").write_text("file,label,site\n" + "".join(rows))
        with pytest.raises(ArchiveError, match=message):
            run(make_photos(), **changes)

    @pytest.mark.parametrize("group", ["site", "(a)(b)", "(", [], [1], ["site"], 3])
    def test_a_group_that_is_none_of_the_three_kinds_is_refused(self, group, make_params):
        with pytest.raises(ValidationError, match=r"data.group: found .*; allowed"):
            make_params(data={"group": group})


def picture(seed, size=96):
    """Return a photo with some structure."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class TestNearCopies:
    """Photos that look the same are one group, or leave."""

    @pytest.fixture
    def photos(self):
        """20 photos of two classes, and near-copies of two of them."""
        names = {f"{label}/{k}.png": f"{label}{k}" for label in ("ant", "bee") for k in range(10)}
        files = {name: saved(picture(k)) for k, name in enumerate(names)}
        files["ant/again.jpg"] = saved(picture(0), "JPEG", quality=60)
        files["ant/mirrored.webp"] = saved(ImageOps.mirror(picture(0)).resize((70, 70)), "WEBP")
        return files

    def test_they_are_one_group(self, run, photos):
        found = run(photos)
        names = ["ant/0.png", "ant/again.jpg", "ant/mirrored.webp"]
        assert len({found[name] for name in names}) == 1
        assert sorted(row["file"] for row in run.groups) == names
        assert {row["near_copy"] for row in run.groups} == {"1"}
        split, _ = found["ant/0.png"]
        assert run.prepared.counts[split]["ant"].near_copies == 3

    def test_without_them_they_may_be_in_two_splits(self, run, photos):
        run(photos, near_copies=False)
        assert run.groups == []

    def test_under_two_classes_all_leave(self, run, photos):
        photos["bee/again.jpg"] = photos.pop("ant/again.jpg")
        found = run(photos)
        names = {"ant/0.png", "bee/again.jpg", "ant/mirrored.webp"}
        assert set(run.left_out) == names
        assert found.keys().isdisjoint(names)
        assert run.left_out["ant/0.png"] == "near-copy: looks like bee/again.jpg of class bee"
        (one,) = (item for item in run.prepared.left_out if item.file == "ant/0.png")
        assert (one.other_file, one.other_label) == ("bee/again.jpg", "bee")

    def test_many_under_two_classes_are_said(self, run):
        image = picture(0)
        files = {
            f"{label}/{k}.png": saved(picture(k + 99)) for label in ("a", "b") for k in range(20)
        }
        files |= {f"a/x{k}.jpg": saved(image, "JPEG", quality=40 + k) for k in range(10)}
        files |= {f"b/x{k}.jpg": saved(image, "JPEG", quality=60 + k) for k in range(30)}
        files |= {f"b/{k}.png": saved(picture(k + 200)) for k in range(20)}
        found = run(files)
        assert len(found) == 40
        assert run.prepared.warnings[0].startswith(
            "data.near_copies: 10 of 30 photos of class 'a' are left out, such as a/x0.jpg looks"
        )

    def test_a_near_copy_of_a_test_photo_leaves_training(self, run, photos):
        files = {f"train/{name}": data for name, data in photos.items()}
        files["val/bee/test.jpg"] = saved(picture(3), "JPEG", quality=70)
        files["val/ant/test.jpg"] = saved(picture(99))
        found = run(files)
        assert run.left_out == {
            "train/ant/3.png": "near-copy: looks like the test photo val/bee/test.jpg, or like a "
            "photo that does"
        }
        assert found["val/bee/test.jpg"] == ("test", "bee")
        (one,) = run.prepared.left_out
        assert (one.other_file, one.other_label) == ("val/bee/test.jpg", "bee")

    def test_without_near_copies_and_groups_the_splits_are_the_same(self, run, photos):
        files = {name: data for name, data in photos.items() if name.endswith("png")}
        assert run(files) == run(files, near_copies=False)


def at(time, seed, camera=None, fraction=None):
    image = picture(seed)
    exif = image.getexif()
    detail = exif.get_ifd(ExifTags.IFD.Exif)
    detail[ExifTags.Base.DateTimeOriginal] = time
    if fraction:
        detail[ExifTags.Base.SubsecTimeOriginal] = fraction
    if camera:
        exif[ExifTags.Base.Model] = camera
    return saved(image, "JPEG", exif=exif)


class TestBursts:
    """Photos that were taken shortly after one another are one group."""

    def test_times_of_a_folder_or_a_camera(self, run):
        files = {f"ant/x{k}.png": saved(picture(100 + k)) for k in range(6)}
        files |= {f"bee/x{k}.png": saved(picture(200 + k)) for k in range(6)}
        day = "2026:05:01 10:00:"
        files |= {
            "ant/1.jpg": at(f"{day}00", 1),
            "ant/2.jpg": at(f"{day}02", 2),
            "ant/3.jpg": at(f"{day}04", 3, fraction="000"),  # 4 seconds after the first
            "ant/4.jpg": at(f"{day}06", 4, fraction="001"),  # 2.001 after the one before
            "bee/5.jpg": at(f"{day}03", 5),  # another folder
            "bee/6.jpg": at("2026:05:01 12:00:00", 6, "X1"),
            "ant/7.jpg": at("2026:05:01 12:00:01", 7, "X1"),
            "ant/8.jpg": at("2026:05:01 12:00:01", 8, "X2"),
            "ant/9.jpg": at("0000:00:00 00:00:00", 9),
        }
        run(files, burst_seconds=2)
        groups = defaultdict(set)
        for row in run.groups:
            groups[row["group"]].add(row["file"])
        # The two at 12:00:01 are in one folder.
        assert sorted(map(sorted, groups.values())) == [
            ["ant/1.jpg", "ant/2.jpg", "ant/3.jpg"],
            ["ant/7.jpg", "ant/8.jpg", "bee/6.jpg"],
        ]
        assert (
            "13 of 21 photos have no EXIF time, which data.burst_seconds"
            in run.prepared.warnings[0]
        )
        run(files)
        assert run.groups == []


class TestRare:
    """Classes with few photos."""

    @pytest.fixture
    def photos(self, make_photos):
        few = {**make_photos(classes=("dog", "eel"), each=2, seed=1), "fox/0.png": b"broken"}
        return {**make_photos(each=10), **few}

    def test_they_are_left_out(self, run, photos):
        found = run(photos, min_photos=3, max_unreadable=0.1)
        assert {label for _, label in found.values()} == {"ant", "bee", "crab"}
        assert run.left_out["dog/00.png"] == "rare class: 2 photos of the class"
        (warning,) = run.prepared.warnings
        assert warning == (
            "classes with fewer than data.min_photos 3 photos are left out: "
            "dog (2), eel (2), fox (0)"
        )

    def test_they_become_one_class(self, run, photos):
        del photos["fox/0.png"]
        found = run(photos, min_photos=3, rare="merge")
        assert Counter(label for _, label in found.values()) == {
            "ant": 10,
            "bee": 10,
            "crab": 10,
            "other": 4,
        }

    def test_they_join_a_class_of_others(self, run, photos, make_photos):
        del photos["fox/0.png"]
        others = make_photos(classes=["Other"], each=5, seed=7)
        found = run({**photos, **others}, min_photos=3, rare="merge")
        assert Counter(label for _, label in found.values())["Other"] == 9
        assert "now belong to the class 'Other'" in run.prepared.warnings[0]

    def test_two_classes_must_be_left(self, run, photos):
        with pytest.raises(
            ArchiveError, match="11 leaves fewer than two classes; the two largest have 10, 10"
        ):
            run(photos, min_photos=11, max_unreadable=0.1)

    def test_rare_classes_without_a_training_photo_are_no_class(self, run, make_photos):
        files = {**make_photos("train", each=10), **make_photos("test", each=3, seed=1)}
        for label, seed in (("dog", 2), ("eel", 3)):
            ((_, photo),) = make_photos(classes=[label], each=1, seed=seed).items()
            files |= {f"train/{label}/0.png": photo, f"test/{label}/0.png": photo}
        with pytest.raises(
            ArchiveError, match="training has no usable photo of class 'other' left; see"
        ):
            run(files, min_photos=3, rare="merge")
        assert set(run({**files}, min_photos=3).values()) >= {("test", "ant")}
