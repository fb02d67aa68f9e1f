"""Features are the input of the output layer, computed once, in the order of photos."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from fieldguide.core.errors import TrainingError
from fieldguide.network.augmentation import Augmentation
from fieldguide.network.batches import Batches, Order
from fieldguide.network.features import FeatureBatches, Head, cached_features, classifier_input
from fieldguide.network.initial import InitialNetwork
from fieldguide.network.preprocessing import Preprocessing

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(32, "bicubic", mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def initial_with():
    def make(name="test_resnet"):
        torch.manual_seed(9)
        options = {"img_size": 32} if name in ("test_vit", "volo_d1_224") else {}
        net = timm.create_model(name, num_classes=3, drop_rate=0.5, **options)
        return InitialNetwork(net.requires_grad_(False).eval(), PREPROCESSING, "w (SHA-256 0)")

    return make


@pytest.fixture
def compute(initial_with, store):
    """Computes features of a split in a folder, or reads them from there."""

    def run(folder=Path("features"), *, split="train", with_flipped=True, initial=None):
        return cached_features(
            folder,
            initial or initial_with(),
            store.split(split),
            device=CPU,
            with_flipped=with_flipped,
        )

    return run


@torch.no_grad()
def features_by_hand(net, split, *, flipped):
    """Return features of one photo after the other, normalised by NumPy."""
    found = []
    for pixels in split.images(np.arange(len(split))):
        image = torch.from_numpy(pixels[:, ::-1].copy() if flipped else pixels)
        image = image.permute(2, 0, 1)[None].float() / 255
        image = torch.nn.functional.interpolate(image, 32, mode="bicubic", antialias=True)
        image = image.clamp(0, 1).numpy()[0]
        mean, std = (np.array(one)[:, None, None] for one in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
        image = torch.from_numpy((image - mean) / std)[None].float()
        found.append(net.forward_head(net.forward_features(image), pre_logits=True)[0].numpy())
    return np.stack(found)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_features_are_the_input_of_the_output_layer(name, compute, initial_with, store):
    initial = initial_with(name)
    found = compute(initial=initial)
    assert found.dtype == np.float32
    for view in (0, 1):
        expected = features_by_hand(initial.net, store.split("train"), flipped=view == 1)
        np.testing.assert_allclose(found[view], expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_nfnet", "dpn48b"])
@torch.no_grad()
def test_the_head_maps_features_to_the_scores_of_the_network(name, initial_with):
    """Also if the output layer is a convolution of one pixel, as in dpn48b."""
    net = initial_with(name).net
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    head = Head(net.get_classifier(), 0.5).eval()
    torch.testing.assert_close(head(classifier_input(net, images)), net(images))


@pytest.mark.slow
def test_a_network_whose_scores_depend_on_more_than_its_output_layer_is_refused(
    compute, initial_with
):
    """VOLO adds scores of all patches."""
    initial = initial_with("volo_d1_224")
    with pytest.raises(
        TrainingError, match=r"model\.finetune: head cannot train .*; allowed: last_k, gradual"
    ):
        compute(initial=initial)
    assert not list(Path("features").rglob("*.npy"))


def test_the_head_has_dropout_only_in_training():
    torch.manual_seed(0)
    head, features = Head(torch.nn.Linear(1000, 2), 0.5), torch.ones(1, 1000)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_without_flipped_photos_there_is_one_view(compute, store):
    assert compute(with_flipped=False).shape == (1, 48, 96)
    assert compute().shape == (2, 48, 96)
    assert compute(split="val", with_flipped=False).shape == (1, 12, 96)
    assert {path.name for path in Path("features").iterdir() if path.is_dir()} == {
        *("train-1", "train-2", "val-1")
    }


def test_features_are_computed_once(compute, capsys):
    first = np.array(compute())
    assert "Computing features of 48 train photos" in capsys.readouterr().out
    (file,) = Path("features").rglob("*.npy")
    np.save(file, first + 1)
    np.testing.assert_array_equal(compute(), first + 1)
    assert capsys.readouterr().out == ""


def test_an_interrupted_computation_leaves_no_incomplete_file(compute, initial_with):
    initial, calls = initial_with(), []

    def interrupt(_module, _inputs):
        calls.append(1)
        if len(calls) == 2:  # the flipped view
            raise KeyboardInterrupt

    handle = initial.net.fc.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        compute(initial=initial)
    handle.remove()
    assert not list(Path("features").rglob("*.npy"))
    expected = compute(Path("other"))
    np.testing.assert_array_equal(compute(initial=initial), expected)


def compute_in_process(folder, initial, split, barrier, results):
    torch.set_num_threads(1)
    calls = []
    initial.net.fc.register_forward_hook(lambda *_: calls.append(1))
    barrier.wait()
    found = cached_features(folder, initial, split, device=CPU, with_flipped=True)
    results.put((len(calls), float(found.sum())))


def test_two_processes_compute_once(initial_with, store, compute):
    expected = float(compute(Path("alone")).sum())
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (Path("features").resolve(), initial_with(), store.split("train"), barrier, results)
    processes = [context.Process(target=compute_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert [calls > 0 for calls, _ in sorted(found)] == [False, True]
    assert [total for _, total in found] == [expected, expected]


@pytest.mark.parametrize("rank", [0, 1])
def test_features_come_in_the_order_of_photos_and_are_flipped_like_them(rank, store):
    """The feature of a photo is its number; that of the flipped photo is minus its number."""
    split = store.split("train")
    numbers = np.arange(1, 49, dtype=np.float32)
    features = np.stack([numbers, -numbers])[:, :, None]
    photos = torch.from_numpy(split.images(np.arange(48))).permute(0, 3, 1, 2).float() / 255
    plain = Preprocessing(16, "bilinear", mean=[0.0] * 3, std=[1.0] * 3)

    def order():
        return Order(split, 10, device=CPU, seed=3, rank=rank, world_size=2)

    drawn = FeatureBatches(features, split.labels, order())
    # Crops shift every photo by up to two pixels.
    shown = Batches(split, order(), plain, augmentation=Augmentation(crop="shift"))
    assert len(drawn) == len(shown) == 3
    seen = []
    for epoch in range(3):
        drawn.order.epoch = shown.order.epoch = epoch
        for (values, labels), (images, other_labels) in zip(drawn, shown, strict=True):
            assert torch.equal(labels, other_labels)
            seen.append(tuple(values[:, 0].tolist()))
            for value, image in zip(values[:, 0], images, strict=True):
                photo = photos[int(value.abs()) - 1]
                photo = photo.flip(-1) if value < 0 else photo
                assert is_a_crop(image, photo)
    assert len(set(seen)) == len(seen)
    assert {value > 0 for batch in seen for value in batch} == {True, False}


def is_a_crop(image, photo, border=2):
    padded = torch.nn.functional.pad(photo[None], [border] * 4, mode="reflect")[0]
    steps = range(2 * border + 1)
    return any(
        torch.allclose(image, padded[:, row : row + 16, column : column + 16])
        for row in steps
        for column in steps
    )


@pytest.mark.parametrize("views", [1, 2])
def test_without_a_seed_features_come_in_order_and_are_not_flipped(views, store):
    split = store.split("val")
    features = np.stack([np.arange(12), -np.arange(12)])[:views, :, None].astype(np.float32)
    batches = FeatureBatches(features, split.labels, Order(split, 5, device=CPU))
    found = list(batches)
    assert torch.cat([values for values, _ in found])[:, 0].tolist() == list(range(12))
    assert torch.equal(torch.cat([y for _, y in found]), torch.from_numpy(split.labels))


def test_a_single_view_is_only_shuffled(store):
    split = store.split("train")
    features = np.arange(48, dtype=np.float32)[None, :, None]
    batches = FeatureBatches(features, split.labels, Order(split, 5, device=CPU, seed=0))
    values = torch.cat([values for values, _ in batches])[:, 0].tolist()
    assert sorted(values) == list(range(48))
    assert values != sorted(values)
