"""The probabilities of a split are those of its photos, one by one."""

import numpy as np
import pytest
import torch

from fieldguide.evaluation.predict import predict_split
from fieldguide.network.bundle import Bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing


@pytest.fixture
def bundle(store, make_params):
    model = make_params(
        data={"image_size": 16},
        model={"conv_layers": 2, "first_layer_filters": 4, "num_neurons_dense": 8},
    ).model
    torch.manual_seed(0)
    return Bundle(
        net=CNN(model, image_size=16, num_classes=3),
        architecture=model.architecture,
        classes=store.classes,
        image_size=16,
        resize="crop",
        preprocessing=Preprocessing(16, "bilinear", store.mean, store.std),
        val_acc=0.5,
        started_from="none",
        calibration=Calibration(temperature=2.0, target_precision=0.95, min_confidence=None),
    )


@torch.no_grad()
def softmax_by_hand(bundle, pixels):
    """One (H, W, 3) photo at a time, normalised and exponentiated by NumPy."""
    mean, std = bundle.preprocessing.mean, bundle.preprocessing.std
    image = (pixels / 255 - np.array(mean)) / np.array(std)
    scores = (
        bundle.net(torch.from_numpy(image.transpose(2, 0, 1)[None]).float())[0].double().numpy()
    )
    return np.exp(scores / 2) / np.exp(scores / 2).sum()  # at a temperature of 2


@pytest.mark.parametrize("name", ["train", "test"])
def test_probabilities_equal_a_forward_pass_of_each_photo(name, bundle, store):
    split = store.split(name)
    found = predict_split(bundle, split)
    bundle.net.eval()
    expected = [softmax_by_hand(bundle, photo) for photo in split.images(np.arange(len(split)))]
    assert found.shape == (len(split), 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


def test_dropout_and_batch_norm_are_in_eval_mode(bundle, store):
    bundle.net.train()
    first = predict_split(bundle, store.split("test"))
    assert np.array_equal(first, predict_split(bundle, store.split("test")))


def test_network_is_left_on_the_cpu(bundle, store):
    predict_split(bundle, store.split("test"))
    assert {parameter.device.type for parameter in bundle.net.parameters()} == {"cpu"}
