"""Figures of filters and responses."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldguide.figures.layers import filter_figure, response_figure, responses
from fieldguide.network.cnn import CNN


def hooks_of(net):
    return [hook for module in net.modules() for hook in module._forward_hooks]


@pytest.fixture
def net_of(make_params):
    def make(**changes):
        settings = {
            "conv_layers": 2,
            "first_layer_filters": 4,
            "num_neurons_dense": 8,
            "whitening": False,
        }
        settings |= changes
        model = make_params(data={"image_size": 32}, model=settings).model
        torch.manual_seed(0)
        return CNN(model, image_size=32, num_classes=3).eval()

    return make


def drawn(figure):
    """The arrays of the tiles in reading order."""
    return [image.get_array() for axes in figure.axes for image in axes.images]


def words(figure):
    return " ".join(text.get_text() for text in [*figure.texts, figure._suptitle])


@pytest.mark.parametrize("changes", [{}, {"activation": "gelu", "batch_norm": False}], ids=str)
@torch.no_grad()
def test_responses_equal_a_forward_pass_by_hand(changes, net_of):
    net, image = net_of(**changes), torch.randn(1, 3, 32, 32)
    found = responses(net, image)
    assert list(found) == ["conv1", "conv2"]
    for name, block in net.blocks.items():
        after = block.conv(image)
        if "norm" in dict(block.named_children()):
            after = block.norm(after)
        after = block.activation(after)
        torch.testing.assert_close(found[name], after[0])
        image = nn.functional.max_pool2d(after, 2)
    assert found["conv1"].shape == (4, 32, 32)
    assert found["conv2"].shape == (8, 16, 16)
    assert hooks_of(net) == []


def test_hooks_are_removed_after_an_error(net_of):
    net = net_of()
    with pytest.raises(RuntimeError, match="channels"):
        responses(net, torch.zeros(1, 1, 32, 32))
    assert hooks_of(net) == []


def test_first_layer_filters_are_stretched_colours(net_of):
    net = net_of()
    weight = net.blocks["conv1"].conv.weight.detach().numpy()  # (F, 3, h, w)
    tiles = drawn(filter_figure("conv1", net.blocks["conv1"].conv, first=True))
    assert len(tiles) == 4
    for kernel, tile in zip(weight, tiles, strict=True):
        expected = (kernel - kernel.min()) / (kernel.max() - kernel.min())
        np.testing.assert_allclose(tile, expected.transpose(1, 2, 0), atol=1e-6)


def test_later_filters_are_drawn_on_their_strongest_channel(net_of):
    net = net_of()
    weight = net.blocks["conv2"].conv.weight.detach().numpy()  # (F, C, h, w)
    tiles = drawn(filter_figure("conv2", net.blocks["conv2"].conv, first=False))
    assert len(tiles) == 8
    for kernels, tile in zip(weight, tiles, strict=True):
        strongest = kernels[np.argmax([np.sqrt((one**2).sum()) for one in kernels])]
        np.testing.assert_allclose(tile, strongest / np.abs(strongest).max(), atol=1e-6)


def test_a_later_layer_with_three_input_channels_is_not_drawn_in_colours(net_of):
    figure = filter_figure("conv2", net_of(first_layer_filters=3).blocks["conv2"].conv, first=False)
    assert all(tile.ndim == 2 for tile in drawn(figure))
    assert "colours" not in words(figure)


@pytest.mark.parametrize(("count", "tiles"), [(1, 1), (9, 9), (64, 64), (65, 64)])
def test_at_most_64_filters_and_responses_are_drawn(count, tiles, net_of):
    net = net_of(first_layer_filters=count, conv_layers=1)
    figure = filter_figure("conv1", net.blocks["conv1"].conv, first=True)
    assert len(drawn(figure)) == tiles
    assert (f"{tiles} of {count}" if count > 64 else f"all {count}") in words(figure)
    maps = responses(net, torch.randn(1, 3, 32, 32))["conv1"]
    photo = np.zeros((32, 32, 3), dtype=np.uint8)
    assert len(drawn(response_figure("conv1", maps, photo, "ant"))) == tiles + 1  # and the photo


def test_responses_are_scaled_to_their_peak_and_silent_ones_counted():
    maps = torch.zeros(3, 2, 2)
    maps[0, 0, 0], maps[0, 1, 1] = 2.0, 1.0
    maps[2] = -0.1  # as GELU gives
    photo = np.full((4, 4, 3), 7, dtype=np.uint8)
    figure = response_figure("conv1", maps, photo, "ant")
    first, second, _, corner = drawn(figure)
    assert first.tolist() == [[1.0, 0.0], [0.0, 0.5]]
    assert second.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert np.array_equal(corner, photo)
    assert "2 silent" in words(figure)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_constant_filter_is_drawn_without_a_warning(value, net_of):
    net = net_of()
    with torch.no_grad():
        for block in net.blocks.values():
            block.conv.weight.fill_(value)
    for name in net.blocks:
        assert np.isfinite(
            drawn(filter_figure(name, net.blocks[name].conv, first=name == "conv1"))
        ).all()
