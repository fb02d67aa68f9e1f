"""The same photos give the same store, and a failure leaves nothing."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldguide.core.errors import ArchiveError
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare import prepare as prepare_module
from fieldguide.prepare import staging
from fieldguide.prepare.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["photos.zip", "photos.tar", "photos.tar.gz", "photos"]


@pytest.fixture
def run(tmp_path, make_params, pack):
    """Prepare {name: bytes}: run(files, kind="photos.zip", **params of data)."""

    def run_prepare(files, kind="photos.zip", target="prepared", **changes):
        archive = pack(tmp_path / kind, files)
        data = {"archive": str(archive), "image_size": 16, **changes}
        params = make_params(data=data, model={"conv_layers": 2})
        return prepare(params.data, tmp_path / target)

    return run_prepare


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def described(folder):
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def sources(folder, name, target="prepared"):
    return Store(folder / target).split(name).sources


def left_out(prepared):
    return {item.file: f"{item.reason}: {item.detail}" for item in prepared.left_out}


class TestOutputs:
    """The files of the store."""

    def test_exactly_these_files_are_written(self, run, make_photos, tmp_path):
        run(make_photos(each=10))
        assert sorted(contents(tmp_path / "prepared")) == [
            *["dataset.json", "groups.csv", "left_out.csv", "most_alike.json"],
            *["test.csv", "test.npy", "train.csv", "train.npy", "val.csv", "val.npy"],
        ]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["photos.zip", "prepared"]

    def test_each_class_is_divided_exactly(self, run, make_photos, tmp_path):
        prepared = run(make_photos(each=20), test_fraction=0.1, val_fraction=0.25)
        # 2 of 20 to test; of the other 18 round(4.5) = 4 to val.
        assert described(tmp_path / "prepared")["counts"] == {
            name: dict.fromkeys(["ant", "bee", "crab"], count)
            for name, count in {"train": 14, "val": 4, "test": 2}.items()
        }
        assert prepared.counts["val"]["ant"] == (4, 4, 0)  # photos, groups, near-copies

    def test_each_photo_is_in_one_split_with_its_own_pixels_label_and_digest(
        self, run, make_photos, tmp_path
    ):
        files = make_photos(each=8, pixels=16)  # stored size, so that nothing is resized
        run(files)
        found = []
        for name in SPLITS:
            split = Store(tmp_path / "prepared").split(name)
            images = split.images(np.arange(len(split)))
            with (tmp_path / "prepared" / f"{name}.csv").open(encoding="utf-8") as file:
                lines = list(csv.DictReader(file))
            for line, image in zip(lines, images, strict=True):
                data = files[line["source"]]
                np.testing.assert_array_equal(image, Image.open(io.BytesIO(data)))
                assert line["class"] == line["source"].split("/")[0]
                assert line["sha256"] == hashlib.sha256(data).hexdigest()
            found += [line["source"] for line in lines]
        assert sorted(found) == sorted(files)

    def test_mean_and_std_are_those_of_the_training_pixels(self, run, make_photos, tmp_path):
        run(make_photos(each=10))
        store = Store(tmp_path / "prepared")
        split = store.split("train")
        pixels = split.images(np.arange(len(split))).astype(np.float64) / 255
        np.testing.assert_allclose(store.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-6)
        np.testing.assert_allclose(store.std, pixels.std(axis=(0, 1, 2)), atol=1e-6)

    def test_black_photos_have_no_deviation(self, run, tmp_path):
        def black(width):
            buffer = io.BytesIO()
            Image.new("RGB", (width, 20)).save(buffer, "PNG")
            return buffer.getvalue()

        run({f"{'ab'[k % 2]}/{k}.png": black(20 + k) for k in range(10)})
        store = Store(tmp_path / "prepared")
        assert (store.mean, store.std) == ([0, 0, 0], [0, 0, 0])

    def test_rows_are_in_the_order_of_their_digests(self, run, make_photos, tmp_path):
        files = make_photos(each=10)
        run(files)
        for name in SPLITS:
            found = [hashlib.sha256(files[source]).digest() for source in sources(tmp_path, name)]
            assert found == sorted(found)

    @pytest.mark.parametrize("photos_per_shard", [1, 5, 7])
    def test_shards_are_limited_and_hold_the_same_rows(
        self, photos_per_shard, run, make_photos, tmp_path, monkeypatch
    ):
        files = make_photos(each=10)
        run(files, target="whole")
        whole = Store(tmp_path / "whole").split("train")
        size = photos_per_shard * 16 * 16 * 3 + 128
        monkeypatch.setattr(prepare_module, "_MIB", size)
        monkeypatch.setattr(staging, "_BLOCK_BYTES", 2 * 16 * 16 * 3)
        run(files, shard_size=1)
        store = Store(tmp_path / "prepared")
        rows = np.random.default_rng(0).permutation(len(whole))
        np.testing.assert_array_equal(store.split("train").images(rows), whole.images(rows))
        assert store.split("train").sources == whole.sources
        assert (store.mean, store.std) == (Store(tmp_path / "whole").mean, store.std)
        shards = described(tmp_path / "prepared")["shards"]
        assert len(shards["train"]) >= -(-len(whole) // photos_per_shard)
        for shard in [shard for name in SPLITS for shard in shards[name]]:
            file = tmp_path / "prepared" / shard["file"]
            assert file.stat().st_size <= size
            assert hashlib.sha256(file.read_bytes()).hexdigest() == shard["sha256"]
            index = file.with_suffix(".csv").read_bytes()
            assert hashlib.sha256(index).hexdigest() == shard["index_sha256"]
            prefix = file.stem.partition("-")[2]
            for line in csv.DictReader(io.StringIO(index.decode())):
                assert f"{int(line['sha256'], 16):0256b}".startswith(prefix)


class TestSameInputSameBytes:
    """Only the photos and the params decide."""

    def test_the_kind_of_archive_does_not_matter(self, run, make_photos, tmp_path):
        files = {**make_photos("top/train"), **make_photos("top/val", seed=1)}
        files |= {"top/train/ant/broken.jpg": b"broken", "top/train/ant/é ü.png": b""}
        for kind in KINDS:
            run(files, kind, target=f"of {kind}", max_unreadable=0.5)
        first = contents(tmp_path / f"of {KINDS[0]}")
        assert all(contents(tmp_path / f"of {kind}") == first for kind in KINDS[1:])

    def test_the_order_in_the_archive_does_not_matter(self, run, make_photos, tmp_path):
        files = make_photos()
        for kind in KINDS[:3]:
            run(files, kind, target="forwards")
            run(dict(reversed(files.items())), kind, target="backwards")
            assert contents(tmp_path / "forwards") == contents(tmp_path / "backwards")

    @pytest.mark.slow
    def test_the_number_of_threads_does_not_matter(self, run, make_photos, tmp_path):
        files = make_photos(each=30) | {"ant/broken.png": b"broken", "bee/broken.png": b"broken"}
        run(files, max_unreadable=0.5)
        on_one_core(tmp_path, "prepared on one", max_unreadable=0.5)
        assert contents(tmp_path / "prepared") == contents(tmp_path / "prepared on one")

    @pytest.mark.parametrize(
        "limit", [("_PHOTOS", 1), ("_PHOTOS", 5), ("_BYTES", 4000), ("_PIXEL_BYTES", 2000)]
    )
    def test_the_size_of_a_chunk_does_not_matter(
        self, limit, run, make_photos, tmp_path, monkeypatch
    ):
        files = make_photos(each=14) | {"ant/03.png": b"broken"}
        run(files, target="usual", max_unreadable=0.5)
        monkeypatch.setattr(staging, *limit)
        for kind in ("photos.zip", "photos.tar.gz"):
            run(files, kind, max_unreadable=0.5)
            assert contents(tmp_path / "prepared") == contents(tmp_path / "usual")

    @pytest.mark.parametrize("seed", [0, 5])
    def test_a_seed_gives_the_same_split_and_another_one_differs(
        self, seed, run, make_photos, tmp_path
    ):
        files = make_photos(each=20)
        for target, number in {"one": seed, "same": seed, "other": 9}.items():
            run(files, target=target, seed=number)
        assert contents(tmp_path / "one") == contents(tmp_path / "same")
        assert sources(tmp_path, "test", "one") != sources(tmp_path, "test", "other")


class TestLeftOut:
    """Photos that are in no split, and why."""

    def test_everything_left_out_is_recorded_with_its_reason(self, run, make_photos, tmp_path):
        files = make_photos("train", each=6) | make_photos("test", each=2, seed=1)
        ((_, small),) = make_photos(classes=["ant"], each=1, pixels=15).items()
        files |= {
            "train/ant/broken.png": b"broken",
            "train/bee/empty.JPG": b"",
            "train/bee/small.png": small,
            "train/bee/copy.png": files["train/bee/00.png"],
            "train/crab/of test.png": files["test/crab/00.png"],
            "train/ant/both.png": files["train/crab/01.png"],
            "train/cover.png": files["train/ant/03.png"],
            "train/readme.txt": b"",
            "train/ant/.DS_Store": b"",
            "__MACOSX/train/ant/._00.png": b"",
        }
        prepared = run(files, max_unreadable=0.1)
        assert left_out(prepared) == {
            "train/ant/broken.png": "unreadable: cannot identify image file",
            "train/bee/empty.JPG": "unreadable: the file is empty",
            "train/bee/small.png": "too small: 15×15 pixels",
            "train/bee/copy.png": "duplicate: copy of another photo",
            "train/crab/of test.png": "duplicate: copy of a test photo",
            "train/ant/both.png": "duplicate: copies in several classes",
            "train/crab/01.png": "duplicate: copies in several classes",
            "train/cover.png": "misplaced: outside the class folders",
            "train/readme.txt": "not a photo: .txt",
        }
        with (tmp_path / "prepared" / "left_out.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["file", "class", "reason", "detail", "other_file", "other_class"]
        assert rows == [list(item) for item in prepared.left_out]
        assert {file: (other, label) for file, *_, other, label in rows if other} == {
            "train/ant/both.png": ("train/crab/01.png", "crab"),
            "train/crab/01.png": ("train/ant/both.png", "ant"),
            "train/bee/copy.png": ("train/bee/00.png", "bee"),
            "train/crab/of test.png": ("test/crab/00.png", "crab"),
        }
        assert {
            name: sum(count.photos for count in prepared.counts[name].values()) for name in SPLITS
        } == {
            "train": 14,  # 6, 6 and 5; one of each class goes to val
            "val": 3,
            "test": 6,
        }

    def test_the_test_set_is_not_changed(self, run, make_photos, tmp_path):
        test = make_photos("val", each=3, seed=1)
        test["val/bee/copy.png"] = test["val/ant/00.png"]
        run(make_photos("train", each=6) | test)
        assert sorted(sources(tmp_path, "test")) == sorted(test)

    def test_three_folders_are_the_three_splits(self, run, make_photos, tmp_path):
        photos = {name: make_photos(name, each=3, seed=k) for k, name in enumerate(SPLITS)}
        run({**photos["train"], **photos["val"], **photos["test"]})
        for name in SPLITS:
            assert sorted(sources(tmp_path, name)) == sorted(photos[name])

    @pytest.mark.parametrize(("allowed", "good"), [(0.05, True), (0.0499, False), (0, False)])
    def test_unreadable_photos_are_allowed_up_to_the_limit(
        self, allowed, good, run, make_photos, tmp_path
    ):
        files = make_photos(classes=["ant", "bee"], each=10)
        files["ant/03.png"] = b"broken"  # 1 of 20
        if good:
            assert len(run(files, max_unreadable=allowed).left_out) == 1
            return
        with pytest.raises(
            ArchiveError,
            match=rf"1 of 20 photos are unreadable \(5\.0%\); allowed: data\.max_unreadable "
            rf"{allowed}.*\n  ant/03\.png: cannot identify image file",
        ):
            run(files, max_unreadable=allowed)
        assert not (tmp_path / "prepared").exists()

    def test_a_png_bomb_is_left_out_with_its_reason(self, run, make_photos):
        buffer = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
        prepared = run({**make_photos(), "ant/bomb.png": buffer.getvalue()}, max_unreadable=0.1)
        assert "20000×20000 pixels do not fit into memory" in left_out(prepared)["ant/bomb.png"]

    def test_a_member_damaged_in_the_archive_is_unreadable(self, run, make_photos, tmp_path, pack):
        archive = pack(tmp_path / "photos.zip", make_photos())
        data = bytearray(archive.read_bytes())
        data[500:520] = bytes(20)
        archive.write_bytes(data)
        prepared = run({}, kind="none", max_unreadable=0.1, archive=str(archive))
        assert left_out(prepared).keys() == {"ant/00.png"}
        assert "damaged in the archive" in left_out(prepared)["ant/00.png"]


class TestFailure:
    """A failure has a message, and leaves nothing."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: {k: v for k, v in f.items() if "ant" in k}, r"found 1 class"),
            (lambda f: {"a.txt": b""}, r"no photo found among 1 file \(1 \.txt\)"),
            (lambda f: {**f, "dog/0.png": flat()}, r"class 'dog': 1 usable photo"),
            (
                lambda f: {**f, "dog/0.png": b"broken"},
                "training has no usable photo of class 'dog' left",
            ),
            (
                lambda f: dict.fromkeys(f, b"broken"),
                "training has no usable photo of class 'ant' left",
            ),
            (lambda f: {**f, "../x.png": b""}, "leaves the archive"),
        ],
    )
    def test_nothing_is_left_at_the_target(self, change, message, run, make_photos, tmp_path):
        with pytest.raises(ArchiveError, match=message):
            run(change(make_photos()), max_unreadable=1)
        assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]

    def test_a_class_needs_three_photos_for_three_splits(self, run, make_photos):
        prepared = run(make_photos(each=3))
        assert all(set(counts.values()) == {(1, 1, 0)} for counts in prepared.counts.values())
        with pytest.raises(ArchiveError, match=r"class 'ant': 1 usable photo left to split by da"):
            run(make_photos(each=2))

    @pytest.mark.parametrize("emptied", ["val", "test"])
    def test_a_split_without_a_usable_photo_is_refused(self, emptied, run, make_photos):
        """Training could not validate, and evaluation would divide by zero."""
        files = {**make_photos("train"), **make_photos("val", seed=1)}
        files |= make_photos("test", seed=2)
        if emptied == "val":  # copies of the test set
            files |= make_photos("val", seed=2)
        else:
            files |= make_photos("test", seed=2, pixels=9)  # too small
        with pytest.raises(ArchiveError, match=emptied):
            run(files)


def flat():
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def on_one_core(folder, target, **changes):
    """Prepare the archive in a process that may use only one core."""
    text = f"""
import os, pathlib, yaml
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from fieldguide.prepare.prepare import prepare
from fieldguide.core.params import DataParams
raw = yaml.safe_load(pathlib.Path({str(ROOT / "params.yaml")!r}).read_text())["data"]
raw |= {{"archive": {str(folder / "photos.zip")!r}, "image_size": 16, **{changes!r}}}
prepare(DataParams(**raw), pathlib.Path({str(folder / target)!r}))
"""
    python(text)


# Only anonymous memory: the system can take back mapped pages of files at any time.
MEASURE = """
import pathlib, re, sys, threading, yaml
from fieldguide.prepare.prepare import prepare
from fieldguide.core.params import DataParams
most, done = 0, threading.Event()
def watch():
    global most
    while not done.wait(0.002):
        status = pathlib.Path("/proc/self/status").read_text()
        most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]))
thread = threading.Thread(target=watch)
thread.start()
params, archive, target = sys.argv[1:]
raw = yaml.safe_load(pathlib.Path(params).read_text())["data"]
prepare(DataParams(**{**raw, "archive": archive, "image_size": 128}), pathlib.Path(target))
done.set()
thread.join()
print(most)
"""


def python(text, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path, make_photos, pack):
    """1,000 photos are 49 MB of pixels; 100 are 5 MB."""
    most = []
    for each in (50, 500):
        files = make_photos(classes=["ant", "bee"], each=each)
        archive = pack(tmp_path / f"{each}.tar.gz", files)
        most.append(int(python(MEASURE, ROOT / "params.yaml", archive, tmp_path / f"{each}")))
    few, many = most
    assert many - few < 16_000, most  # KiB; allocators keep some
