"""The prepared store gives back what was written, over any number of shards."""

import json
import shutil

import numpy as np
import pytest

from fieldguide.data.store import SPLITS, Store
from fieldguide.errors import StoreError


@pytest.fixture
def folder(store, tmp_path):
    """A copy of the prepared store, free to be damaged."""
    return shutil.copytree(store.folder, tmp_path / "prepared")


@pytest.fixture
def sharded(folder):
    """The same store, its training photos cut into shards of 20, 1 and 27 rows."""
    pixels = np.load(folder / "train-000.npy")
    shards = []
    for k, part in enumerate(np.split(pixels, [20, 21])):
        np.save(folder / f"train-{k:03d}.npy", part)
        shards.append({"file": f"train-{k:03d}.npy", "rows": len(part)})
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
def test_rows_come_in_the_order_asked_for_whatever_the_shards(rows, store, sharded):
    rows = np.array(rows, dtype=np.int64)
    whole = np.load(store.folder / "train-000.npy")
    for opened in (store, sharded):
        np.testing.assert_array_equal(opened.split("train").images(rows), whole[rows])


def test_shards_are_counted_together(store, sharded):
    assert len(sharded.split("train")) == 48
    assert sharded.split("train").nbytes == store.split("train").nbytes
    np.testing.assert_array_equal(sharded.split("train").labels, store.split("train").labels)


@pytest.mark.parametrize("row", [48, -49])
def test_a_row_that_is_not_there_is_an_error(row, store):
    with pytest.raises(IndexError, match="out of bounds"):
        store.split("train").images(np.array([row]))


def test_images_are_copies(store):
    split = store.split("train")
    split.images(np.array([0]))[:] = 0
    assert split.images(np.array([0])).any()


def test_a_missing_store_says_what_to_run(tmp_path):
    with pytest.raises(StoreError, match=r"not a prepared store .*run `dvc repro prepare`"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"format": 1}', b"\xff"])
def test_another_file_is_not_a_description(text, tmp_path):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "dataset.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"dataset\.json: not a prepared store"):
        Store(tmp_path)


def test_a_store_of_another_format_is_refused(folder):
    change(folder, lambda description: description.update(format=2))
    with pytest.raises(StoreError, match=r"found format 2; allowed: 1; run `dvc repro prepare`"):
        Store(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"val-000\.npy: cannot be read"),
        (lambda file: file.write_bytes(b""), r"val-000\.npy: cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"val-000\.npy: cannot be read"),
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
            r"val-000\.npy: cannot be read \(Array can't be memory-mapped",
        ),
    ],
)
def test_a_damaged_shard_is_named(damage, message, folder):
    damage(folder / "val-000.npy")
    with pytest.raises(StoreError, match=message):
        Store(folder).split("val")


def test_an_index_of_another_length_is_refused(folder):
    index = folder / "val.csv"
    lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
    index.write_text("".join(lines[:-1]), encoding="utf-8")
    split = Store(folder).split("val")
    with pytest.raises(StoreError, match=r"val\.csv: found 11 rows; the shards have 12"):
        _ = split.labels


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.unlink(),
        lambda index: index.write_text(
            index.read_text(encoding="utf-8").replace(",bee,", ",cow,"), encoding="utf-8"
        ),
    ],
)
def test_an_index_that_is_missing_or_of_other_classes_is_refused(damage, folder):
    damage(folder / "val.csv")
    split = Store(folder).split("val")
    with pytest.raises(StoreError, match=r"val\.csv"):
        _ = split.labels
