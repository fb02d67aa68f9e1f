"""The table of a network's layers."""

import timm
import torch

from fieldguide.network.cnn import CNN
from fieldguide.network.summary import summarize


def rows_of(summary):
    header, *lines = summary.splitlines()
    assert header.split() == ["layer", "type", "output", "parameters", "operations"]
    assert len({len(line) for line in (header, *lines)}) == 1, "columns are not aligned"
    return {name: rest for name, *rest in map(str.split, lines)}


def test_layers_of_the_cnn_by_hand(make_params):
    changes = {
        "conv_layers": 2,
        "first_layer_filters": 4,
        "num_neurons_dense": 8,
        "pooling": "flatten",
        "whitening": False,
    }
    params = make_params(model=changes, data={"image_size": 16}).model
    net = CNN(params, image_size=16, num_classes=3)
    net.features.conv1.eval()  # a frozen block
    found = rows_of(summarize(net, size=16))
    # A filter of 3×3×3 multiplies and adds 27 numbers for each of 16×16 pixels; then 3×3×4.
    first, second = 2 * 27 * 4 * 16**2, 2 * 36 * 8 * 8**2
    head = 2 * (8 * 4 * 4 * 8 + 8 * 3)
    assert found["features.conv1.conv"] == ["Conv2d", "4×16×16", "108", f"{first:,}"]
    assert found["features.conv1.norm"] == ["BatchNorm2d", "4×16×16", "8", "0"]
    assert found["features.conv2"] == ["ConvBlock", "8×4×4", "304", f"{second:,}"]
    assert found["classifier"] == ["Sequential", "3", "1,059", f"{head:,}"]
    assert found["all"] == ["CNN", "3", "1,479", f"{first + second + head:,}"]
    assert net.training
    assert not net.features.conv1.norm.training
    assert not any(module._forward_hooks for module in net.modules())


def test_only_the_blocks_of_a_network_of_timm():
    net = timm.create_model("test_vit", num_classes=3, img_size=32)
    found = rows_of(summarize(net, size=32))
    assert {"all", "blocks", "blocks.5", "head"} <= set(found)
    assert not any(name.count(".") > 1 for name in found)
    assert found["head"][2] == f"{sum(p.numel() for p in net.head.parameters()):,}"
    inner = {f"blocks.{k}" for k in range(6)} | {"patch_embed.proj", "head"}
    parts = [int(found[name][-1].replace(",", "")) for name in inner]
    assert int(found["all"][-1].replace(",", "")) == sum(parts)
    assert isinstance(net(torch.zeros(1, 3, 32, 32)), torch.Tensor)
