"""The prepared store returns what was written, with any number of shards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fieldguide.core.errors import StoreError
from fieldguide.core.store import SPLITS, Store, groups_note

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(store, tmp_path):
    """A copy of the prepared store, which a test may damage."""
    return shutil.copytree(store.folder, tmp_path / "prepared")


@pytest.fixture
def sharded(folder):
    """The same store, with the training photos in shards of 20, 1 and 27 rows."""
    pixels = np.load(folder / "train.npy")
    header, *lines = (folder / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    shards = []
    for name, first, end in (("0", 0, 20), ("10", 20, 21), ("11", 21, 48)):
        np.save(folder / f"train-{name}.npy", pixels[first:end])
        index = "".join([header, *lines[first:end]])
        (folder / f"train-{name}.csv").write_text(index, encoding="utf-8")
        shards.append({"file": f"train-{name}.npy", "rows": end - first})
    change(folder, lambda description: description["shards"].update(train=shards))
    return Store(folder)


def change(folder, edit):
    file = folder / "dataset.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    edit(description)
    file.write_text(json.dumps(description), encoding="utf-8")


def test_a_store_describes_itself(store):
    assert store.classes == ["ant", "bee", "crab"]
    assert store.image_size == 16
    assert store.resize == "crop"
    assert [len(store.split(name)) for name in SPLITS] == [48, 12, 15]
    assert store.split("val").nbytes == 12 * 16 * 16 * 3


@pytest.mark.parametrize("name", SPLITS)
def test_labels_and_sources_belong_to_the_pixels(name, store):
    """A photo of class k is brightest in channel k."""
    split = store.split(name)
    images = split.images(np.arange(len(split)))
    assert images.shape == (len(split), 16, 16, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.mean(axis=(1, 2)).argmax(axis=1), split.labels)
    assert [source.split("/")[1] for source in split.sources] == [
        store.classes[label] for label in split.labels
    ]
    assert {source.split("/")[0] for source in split.sources} == {name}


@pytest.mark.parametrize(
    "rows", [[0], [19, 20, 21], [47, 0, 47], [], [20], list(range(47, -1, -1)), [5, 30, 20, 5]]
)
def test_rows_come_in_the_requested_order_from_one_or_several_shards(rows, store, sharded):
    rows = np.array(rows, dtype=np.int64)
    whole = np.load(store.folder / "train.npy")
    for opened in (store, sharded):
        np.testing.assert_array_equal(opened.split("train").images(rows), whole[rows])


def test_several_shards_are_one_split(store, sharded):
    assert len(sharded.split("train")) == 48
    assert sharded.split("train").nbytes == store.split("train").nbytes
    np.testing.assert_array_equal(sharded.split("train").labels, store.split("train").labels)
    assert sharded.split("train").sources == store.split("train").sources


def test_several_splits_are_read_as_one(store):
    joined = store.split("train", "val")
    train, val = store.split("train"), store.split("val")
    assert joined.sources == train.sources + val.sources
    rows = np.array([50, 0, 47, 48])
    places = [(val, 2), (train, 0), (train, 47), (val, 0)]
    for image, (split, row) in zip(joined.images(rows), places, strict=True):
        np.testing.assert_array_equal(image, split.images(np.array([row]))[0])


@pytest.mark.parametrize("row", [48, -49])
def test_a_row_out_of_range_is_an_error(row, store, sharded):
    for opened in (store, sharded):
        with pytest.raises(IndexError, match=r"out of (bounds|range)"):
            opened.split("train").images(np.array([row, 0]))


def test_there_may_be_more_shards_than_the_limit_of_open_files(folder):
    """A mapped file counts as an open file, and many systems allow 1,024 by default."""
    pixels = np.load(folder / "val.npy")
    for k in range(40):
        np.save(folder / f"val-{k}.npy", pixels)
    shards = [{"file": f"val-{k}.npy", "rows": 12} for k in range(40)]
    change(folder, lambda description: description["shards"].update(val=shards))
    code = (
        "import resource, sys, pathlib; from fieldguide.core import store;"
        "hard = int(sys.argv[2]); resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard));"
        "print(len(store.Store(pathlib.Path(sys.argv[1])).split('val')))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(folder), str(hard)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        for hard in (200, 30)
    ]
    assert runs[0].stdout == "480\n", runs[0].stderr
    assert "Too many open files" in runs[1].stderr
    assert "raise `ulimit -n`, or data.shard_size" in runs[1].stderr


def test_images_are_copies(store):
    split = store.split("train")
    split.images(np.array([0]))[:] = 0
    assert split.images(np.array([0])).any()


def test_a_missing_store_says_what_to_run(tmp_path):
    with pytest.raises(StoreError, match=r"not a prepared store .*run `dvc repro prepare`"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"format": 2}', b"\xff"])
def test_a_file_that_is_no_description_is_refused(text, tmp_path):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "dataset.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"dataset\.json: not a prepared store"):
        Store(tmp_path)


def test_a_store_of_another_format_is_refused(folder):
    change(folder, lambda description: description.update(format=1))
    with pytest.raises(StoreError, match=r"format: found 1; allowed: 2\); run `dvc repro prepare`"):
        Store(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"val\.npy: cannot be read"),
        (lambda file: file.write_bytes(b""), r"val\.npy: cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"val\.npy: cannot be read"),
        (
            lambda file: np.save(file, np.zeros((12, 16, 16, 3), np.float32)),
            r"found float32 \(12, 16, 16, 3\); allowed: uint8 \(12, 16, 16, 3\)",
        ),
        (
            lambda file: np.save(file, np.zeros((11, 16, 16, 3), np.uint8)),
            r"found uint8 \(11, 16, 16, 3\); allowed: uint8 \(12, 16, 16, 3\)",
        ),
        (
            lambda file: np.save(file, np.array([{}]), allow_pickle=True),
            r"val\.npy: cannot be read \(Array can't be memory-mapped",
        ),
    ],
)
def test_a_damaged_shard_is_named(damage, message, folder):
    damage(folder / "val.npy")
    with pytest.raises(StoreError, match=message):
        Store(folder).split("val")


def test_an_index_with_a_row_missing_is_refused(folder):
    index = folder / "val.csv"
    lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
    index.write_text("".join(lines[:-1]), encoding="utf-8")
    split = Store(folder).split("val")
    with pytest.raises(StoreError, match=r"val\.csv: found 11 rows; allowed: 12, as in its shard"):
        _ = split.labels


def test_a_missing_index_is_named(folder):
    (folder / "val.csv").unlink()
    split = Store(folder).split("val")
    with pytest.raises(StoreError, match=r"val\.csv: cannot be read .*; run `dvc repro`"):
        _ = split.labels


def test_groups_of_test_photos_count_once_and_single_photos_too(folder):
    assert Store(folder).test_groups == 15
    lines = ["x,test,ant", "x,test,ant", "x,test,bee", "y,test,bee", "y,test,bee", "z,train,ant"]
    table = "\n".join(["group,split,class", *lines, ""])
    (folder / "groups.csv").write_text(table, encoding="utf-8")
    assert Store(folder).test_groups == 12  # x, y and 10 of the 15 photos
    (folder / "groups.csv").unlink()
    with pytest.raises(StoreError, match=r"groups\.csv: cannot be read .*; run `dvc repro"):
        _ = Store(folder).test_groups


def test_only_clearly_fewer_groups_than_photos_are_told():
    assert groups_note(200, 181) == groups_note(0, 0) == ""
    assert groups_note(1000, 900).startswith("The 1,000 test photos are 900 groups: photos of one")
