"""Each photo comes once per epoch, in an order that depends only on seed and epoch."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from fieldguide.core.files import write_csv
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order, derive_seed
from fieldguide.network.preprocessing import Preprocessing

CPU = torch.device("cpu")
SIZE = 8
CLASSES = ["a", "b", "c"]


@pytest.fixture
def split_of(tmp_path):
    """Makes a split; every pixel of its n-th photo is n, and its class is n modulo 3."""

    def make(count, shards=1):
        folder = tmp_path / f"store-{count}-{shards}"
        folder.mkdir()
        rows = np.arange(count, dtype=np.uint8)
        listed = []
        for k, shard in enumerate(np.array_split(rows, shards)):
            pixels = np.broadcast_to(shard[:, None, None, None], (len(shard), SIZE, SIZE, 3))
            np.save(folder / f"train-{k}.npy", pixels)
            listed.append({"file": f"train-{k}.npy", "rows": len(shard)})
            index = [[f"{row}.png", CLASSES[row % 3], ""] for row in shard]
            write_csv(folder / f"train-{k}.csv", ["source", "class", "sha256"], index)
        description = {
            "format": 2,
            "classes": CLASSES,
            "image_size": SIZE,
            "resize": "crop",
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
            "shards": {"train": listed},
        }
        (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
        return Store(folder).split("train")

    return make


def batches_of(split, batch_size, *, store=None, jitter=None, size_of=None, **options):
    """Return batches on the CPU, normalised by mean and deviation of a store if there is one."""
    order = Order(split, batch_size, device=CPU, **options)
    if store is None:
        preprocessing = Preprocessing(SIZE, "bilinear", mean=[0.0] * 3, std=[1.0] * 3)
    else:
        preprocessing = Preprocessing(store.image_size, "bilinear", store.mean, store.std)
    change = None if jitter is None else Augmentation(crop="shift", color_jitter=jitter)
    return Batches(split, order, preprocessing, augmentation=change, size_of=size_of)


def rows_of(batches, epoch=0):
    """Return the photos of each batch, known by their grey level; check their labels."""
    batches.order.epoch = epoch
    found = []
    for images, labels in batches:
        rows = (images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(labels, rows % 3)
        found.append(rows.tolist())
    return found


def flat(lists):
    return [row for each in lists for row in each]


@pytest.mark.parametrize("jitter", [None, 0.0])
@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (13, 4, [4, 3, 3, 3]),  # a plain split would end with a batch of one
        (7, 3, [3, 2, 2]),
        (5, 8, [5]),
        (3, 1, [1, 1, 1]),
        (1, 64, [1]),
    ],
)
def test_each_image_comes_once_per_epoch_in_batches_of_almost_equal_size(
    count, batch_size, sizes, jitter, split_of
):
    batches = batches_of(split_of(count), batch_size, seed=3, jitter=jitter)
    found = rows_of(batches)
    assert [len(rows) for rows in found] == sizes
    assert len(batches) == len(sizes)
    assert sorted(flat(found)) == list(range(count))


def test_without_a_seed_images_come_in_order_and_as_they_are(split_of):
    split = split_of(10)
    batches = batches_of(split, 4)
    assert (
        rows_of(batches, epoch=0)
        == rows_of(batches, epoch=5)
        == [[*range(4)], [4, 5, 6], [7, 8, 9]]
    )
    images = torch.cat([images for images, _ in batches])
    expected = torch.from_numpy(split.images(np.arange(10)).astype(np.float32)) / 255
    assert torch.equal(images, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_order_depends_only_on_seed_and_epoch(seed, split_of):
    split = split_of(40)
    first = batches_of(split, 8, seed=seed, jitter=0.1)
    again = batches_of(split, 8, seed=seed, jitter=0.1)
    for _ in first:  # one epoch, not compared
        torch.rand(3)
    first.order.epoch = again.order.epoch = 2
    torch.manual_seed(1)
    ours = list(first)
    torch.manual_seed(2)
    theirs = list(again)
    for (images, labels), (other_images, other_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_other_seeds_and_other_epochs_give_other_orders(split_of):
    split = split_of(40)
    orders = [
        tuple(flat(rows_of(batches_of(split, 8, seed=seed), epoch=epoch)))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert len(set(orders)) == len(orders)
    assert tuple(range(40)) not in orders


def test_epochs_draw_other_augmentations(split_of):
    batches = batches_of(split_of(20), 20, seed=0, jitter=0.5)

    def factors(epoch):
        """Return the brightness of each photo; contrast and saturation do not change grey."""
        batches.order.epoch = epoch
        ((images, _labels),) = batches
        return images[:, 0, 0, 0].sort().values

    assert not torch.equal(factors(0), factors(1))
    assert torch.equal(factors(0), factors(0))


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("batch_size", [1, 5, 30])
def test_augmentation_of_an_image_does_not_depend_on_the_batch_size(batch_size, jitter, store):
    split = store.split("train")

    def epoch(size):
        batches = batches_of(split, size, store=store, seed=5, jitter=jitter)
        batches.order.epoch = 1
        found = list(batches)
        return torch.cat([images for images, _ in found]), torch.cat([y for _, y in found])

    images, labels = epoch(batch_size)
    reference, reference_labels = epoch(len(split))
    assert torch.equal(labels, reference_labels)
    torch.testing.assert_close(images, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [4, 5, 7, 24, 25, 97])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [None, 0])
def test_processes_share_the_batches_of_one(count, batch_size, world_size, seed, split_of):
    """One process with their total batch size has the same batches."""
    split = split_of(count)
    ranks = [
        batches_of(split, batch_size, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    found = [rows_of(batches) for batches in ranks]
    steps = [flat(rows) for rows in zip(*found, strict=True)]
    assert Counter(flat(steps)) == Counter(range(count))
    if batch_size > 1:
        assert steps == rows_of(batches_of(split, batch_size * world_size, seed=seed))
    for step, own in enumerate(zip(*found, strict=True)):
        sizes = [len(rows) for rows in own]
        assert min(sizes) >= 1
        assert max(sizes) <= max(2, batch_size)
        assert max(sizes) - min(sizes) <= 1
        starts = [sum(sizes[:rank]) for rank in range(world_size)]
        for batches, start, size in zip(ranks, starts, sizes, strict=True):
            assert batches.order.step_size(step) == sum(sizes)
            assert batches.order.rank_slice(step) == slice(start, start + size)


def test_processes_augment_as_one_does(split_of):
    def epoch(batch_size, **options):
        return list(batches_of(split, batch_size, seed=0, jitter=0.3, **options))

    split = split_of(25)
    shared = [epoch(4, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *slices in zip(epoch(8), *shared, strict=True):
        for k in (0, 1):  # images, labels
            assert torch.equal(torch.cat([each[k] for each in slices]), whole[k])


@pytest.mark.parametrize(("count", "batch_size"), [(2, 64), (3, 1), (5, 1)])
def test_no_process_gets_an_empty_batch(count, batch_size, split_of):
    """Its mean loss would be NaN."""
    split = split_of(count)
    for rank in (0, 1):
        found = rows_of(batches_of(split, batch_size, seed=0, rank=rank, world_size=2))
        assert all(found)


@pytest.mark.parametrize("shards", [1, 3])
def test_all_images_of_the_store_come_from_any_number_of_shards(shards, split_of):
    found = rows_of(batches_of(split_of(11, shards), 4, seed=1))
    assert sorted(flat(found)) == list(range(11))


def test_batches_are_normalised_and_channels_last(store):
    split = store.split("train")
    plain = batches_of(split, 16, store=store)
    images = torch.cat([images for images, _ in plain])
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        images.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-4
    )
    for jitter in (None, 0.0, 0.3):
        batch, labels = next(iter(batches_of(split, 16, store=store, seed=0, jitter=jitter)))
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.dtype == torch.float32
        assert labels.dtype == torch.int64


def test_size_of_gives_the_input_size_of_each_epoch(split_of):
    split = split_of(10)
    batches = batches_of(split, 4, seed=0, size_of=lambda epoch: 4 + 2 * epoch)
    for epoch in (0, 1, 2):
        assert sorted(flat(rows_of(batches, epoch))) == list(range(10))
        assert {images.shape[1:] for images, _ in batches} == {(3, 4 + 2 * epoch, 4 + 2 * epoch)}


def test_derived_seeds_differ_and_are_stable():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (2**32 - 1, 0)]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(seeds), (
        "weights, order and dropout would have the same random numbers"
    )
    assert seeds == [derive_seed(*key) for key in keys]
    assert all(0 <= seed < 2**64 for seed in seeds)


def skewed(split):
    """Label the 40 photos of a split: 30, 9 and 1 of the three classes."""
    split.labels = np.repeat([0, 1, 2], [30, 9, 1])
    return split


def order_of(split, batch_size=8, **options):
    return Order(split, batch_size, device=CPU, balanced=True, **options)


def epochs_of(order, count):
    """Return the rows and random numbers of each epoch."""
    for epoch in range(count):
        order.epoch = epoch
        rows, draws = zip(*order, strict=True)
        yield torch.cat(rows), torch.cat(draws)


def test_a_balanced_order_draws_classes_equally_often_and_their_photos_too(split_of):
    epochs = list(epochs_of(order_of(skewed(split_of(40)), seed=0), 1500))
    assert {len(rows) for rows, _ in epochs} == {40}
    counts = torch.cat([rows for rows, _ in epochs]).bincount(minlength=40).double()
    shares = counts / counts.sum()
    # Five standard deviations of 60,000 draws: √(1/3 × 2/3 / 60,000) = 0.0019.
    for rows in (slice(0, 30), slice(30, 39), slice(39, 40)):
        assert float(shares[rows].sum()) == pytest.approx(1 / 3, abs=0.0096)
    torch.testing.assert_close(shares[:30], torch.full((30,), 1 / 90).double(), rtol=0.2, atol=0)
    torch.testing.assert_close(shares[30:39], torch.full((9,), 1 / 27).double(), rtol=0.11, atol=0)


def test_a_photo_that_is_drawn_twice_is_augmented_in_two_ways(split_of):
    ((rows, draws),) = epochs_of(order_of(skewed(split_of(40)), seed=0), 1)
    assert (rows == 39).sum() > 1
    assert len(draws.unique(dim=0)) == 40


@pytest.mark.parametrize("seed", [0, 3])
def test_a_balanced_order_depends_only_on_seed_and_epoch(seed, split_of):
    split = skewed(split_of(40))
    first, again = (list(epochs_of(order_of(split, seed=seed), 2)) for _ in range(2))
    for (rows, draws), (same_rows, same_draws) in zip(first, again, strict=True):
        assert torch.equal(rows, same_rows)
        assert torch.equal(draws, same_draws)
    (other, _), *_ = epochs_of(order_of(split, seed=seed + 1), 1)
    assert len({tuple(one.tolist()) for one in (first[0][0], first[1][0], other)}) == 3


def test_processes_share_the_draws_of_one(split_of):
    split = skewed(split_of(40))
    ranks = [list(order_of(split, 4, seed=0, rank=rank, world_size=2)) for rank in (0, 1)]
    for whole, *slices in zip(order_of(split, 8, seed=0), *ranks, strict=True):
        for k in (0, 1):  # rows, random numbers
            assert torch.equal(torch.cat([one[k] for one in slices]), whole[k])
