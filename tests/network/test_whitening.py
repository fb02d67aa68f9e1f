"""The whitening layer: uncorrelated outputs of one variance, and filters that never change."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fieldguide.network.cnn import CNN
from fieldguide.network.initial import initial_network
from fieldguide.network.whitening import Whitening
from fieldguide.training.optimizers import make_optimizer


def photos_like(count, *, size=12, seed=0):
    """Return images whose neighbouring pixels and colours are alike, as in photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size, mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, size, size, generator=generator)


def patches_of(images):
    """Return every 2×2 patch as a row: colour, then row, then column."""
    count, _, height, width = images.shape
    rows = [
        images[n, :, y : y + 2, x : x + 2].flatten().numpy()
        for n in range(count)
        for y in range(height - 1)
        for x in range(width - 1)
    ]
    return np.array(rows, dtype=np.float64)


def test_outputs_for_the_photos_it_was_fitted_to_are_uncorrelated_with_variance_one():
    images = photos_like(40)
    layer = Whitening()
    layer.fit(images.split(15))
    outputs = layer.conv(images)[:, :, :-1, :-1]  # without patches beyond the border
    half = outputs[:, :12].transpose(0, 1).flatten(1)
    moments = half @ half.T / half.shape[1]
    assert moments.numpy() == pytest.approx(np.eye(12), abs=0.01)
    assert torch.equal(outputs[:, 12:], -outputs[:, :12])
    activated = layer(images)
    assert activated.shape == (40, 24, 12, 12)
    assert torch.equal(activated, layer.conv(images).clamp(min=0))


def test_filters_are_those_of_an_independent_formula():
    """Two ways: NumPy's SVD of all patches, and the layer's eigenvectors of their moments."""
    images = photos_like(6)
    layer = Whitening()
    layer.fit([images])
    patches = patches_of(images)
    _, singular, components = np.linalg.svd(patches, full_matrices=False)
    expected = components / np.sqrt(singular**2 / len(patches) + 5e-4)[:, None]
    signs = np.sign(components[np.arange(12), np.abs(components).argmax(axis=1)])
    found = layer.conv.weight[:12].flatten(1).numpy()
    assert found == pytest.approx(expected * signs[:, None], abs=6e-5)
    assert torch.equal(layer.conv.weight, layer.conv.weight.round(decimals=4))


def test_directions_that_photos_do_not_have_are_left_out():
    """Grey photos: a tint that nobody sees must not be enlarged."""
    grey = photos_like(40)[:, :1].expand(-1, 3, -1, -1)
    layer = Whitening()
    layer.fit([grey])
    strengths = layer.conv.weight[:12].flatten(1).norm(dim=1)
    assert (strengths[:4] > 0.1).all()  # the four pixels of a patch
    assert (strengths[4:] == 0).all()
    tint = torch.tensor([0.05, 0.0, -0.05])[:, None, None]
    assert torch.allclose(layer(grey + tint), layer(grey), atol=1e-3)
    layer.fit([torch.zeros(2, 3, 8, 8)])
    assert (layer.conv.weight == 0).all()


def test_a_direction_counts_if_it_varies_more_than_rounding_to_8_bits():
    """Grey photos with a tint of their own, red against blue: its part in a patch's variance."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (40, 1, 1, 1), generator=generator) * 2.0 - 1
    direction = torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    for variance, directions in ((2e-5, 4), (4e-5, 5)):
        # Along the unit vector (1, -1 in 4 pixels) / sqrt(8) the tint t varies by (8 t / sqrt(8))².
        tint = (variance / 8) ** 0.5 * signs * direction
        layer = Whitening()
        layer.fit([photos_like(40)[:, :1].expand(-1, 3, -1, -1) + tint])
        assert int((layer.conv.weight[:12] != 0).flatten(1).any(1).sum()) == directions


def test_few_patches_of_a_large_image_are_enough():
    """A photo of 96 pixels gives 32 × 32 patches, one in three pixels."""
    images = photos_like(3, size=96)
    layer, same = Whitening(), Whitening()
    layer.fit([images])
    changed = images.clone()
    changed[:, :, 2::3, :] = 9  # rows that no patch touches
    changed[:, :, :, 2::3] = 9
    same.fit([changed])
    assert torch.equal(layer.conv.weight, same.conv.weight)


def test_whitening_is_in_single_precision_in_a_training_of_16_bits():
    layer, images = Whitening(), photos_like(5)
    layer.fit([images])
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, layer(images))


def test_a_new_network_is_fitted_to_its_training_photos_and_training_keeps_the_filters(
    store, make_params
):
    params = make_params(
        data={"image_size": 16},
        model={"conv_layers": 2, "filters": "auto", "whitening": True},
    )
    torch.manual_seed(0)
    initial = initial_network(params.model, store)
    net, preprocessing = initial.net, initial.preprocessing
    assert isinstance(net, CNN)
    filters = net.whitening.conv.weight.clone()
    split = store.split("train")  # fewer than 1,000 photos, so all of them
    pixels = torch.from_numpy(split.images(np.arange(len(split)))).permute(0, 3, 1, 2) / 255
    expected = Whitening()
    expected.fit([preprocessing(pixels)])
    assert torch.allclose(filters, expected.conv.weight, atol=2e-4)

    optimizer = make_optimizer(net, params.train)
    net.train()
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    assert torch.equal(net.whitening.conv.weight, filters)
    assert not any(name.startswith("whitening") for name, _ in net.named_parameters())
