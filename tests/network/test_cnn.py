"""Shapes, names and size of the CNN follow from its settings."""

import itertools
import re
from typing import get_args

import pytest
import torch
from bundles import SETTINGS
from pydantic import ValidationError
from torch import nn

from fieldguide.core.params import CNNParams, Params
from fieldguide.network.cnn import ACTIVATIONS, CNN

BASE = SETTINGS | {"conv_layers": 3, "num_neurons_dense": 10}


def params_of(**changes):
    return CNNParams(**(BASE | changes))


def net_of(*, image_size=16, num_classes=3, **changes):
    return CNN(params_of(**changes), image_size=image_size, num_classes=num_classes)


def parameters_by_hand(filters, kernel, side, dense, classes, *, batch_norm):
    """Count a bias, or two parameters of batch norm, for each filter; a bias for each neuron."""
    per_filter = 2 if batch_norm else 1
    convolutions = sum(
        channels * kernel**2 * count + per_filter * count
        for channels, count in itertools.pairwise([3, *filters])
    )
    return convolutions + (filters[-1] * side**2 + 1) * dense + (dense + 1) * classes


@pytest.mark.parametrize(
    ("changes", "filters"),
    [
        ({}, [4, 8, 16]),  # 4 × 2^k
        ({"filter_org": 1.0}, [4, 4, 4]),
        ({"filter_org": 0.5}, [4, 2, 1]),
        ({"filter_org": 0.25, "conv_layers": 4}, [4, 1, 1, 1]),  # 0.25 and 0.0625: at least one
        ({"filter_org": 1.5, "first_layer_filters": 6}, [6, 9, 14]),  # 13.5 rounds to even
        ({"conv_layers": 1}, [4]),
        ({"filters": [5, 3, 7]}, [5, 3, 7]),
    ],
)
def test_filters_of_each_block(changes, filters):
    assert params_of(**changes).widths == filters
    assert [block.conv.out_channels for block in net_of(**changes).blocks.values()] == filters


@pytest.mark.parametrize(
    ("image_size", "changes", "side"),
    [
        (16, {}, 2),
        (32, {}, 4),
        (28, {}, 3),  # 28 -> 14 -> 7 -> 3
        (17, {"conv_layers": 4}, 1),  # 17 -> 8 -> 4 -> 2 -> 1
        (9, {"conv_layers": 1, "kernel_size": 1}, 4),
        (16, {"kernel_size": 5, "filter_org": 0.5}, 2),
        (16, {"kernel_size": 11, "batch_norm": False}, 2),
        (8, {"activation": "mish", "dropout": 0.5}, 1),
    ],
)
def test_shapes_and_parameter_count(image_size, changes, side):
    net = net_of(image_size=image_size, num_classes=5, **changes)
    params = params_of(**changes)
    images = torch.zeros(2, 3, image_size, image_size)
    assert net.features(images).shape == (2, params.widths[-1], side, side)
    assert net(images).shape == (2, 5)
    expected = parameters_by_hand(
        params.widths, params.kernel_size, side, 10, 5, batch_norm=params.batch_norm
    )
    assert sum(p.numel() for p in net.parameters()) == expected


def test_blocks_halve_the_image():
    net = net_of(image_size=28)
    images, sides = torch.zeros(1, 3, 28, 28), []
    for block in net.features:
        images = block(images)
        sides.append(images.shape[-1])
    assert sides == [14, 7, 3]


def test_blocks_are_named_in_order():
    net = net_of()
    assert list(net.blocks) == ["conv1", "conv2", "conv3"]
    assert list(net.blocks.values()) == list(net.features)
    assert "features.conv2.conv.weight" in net.state_dict()
    assert "classifier.output.bias" in net.state_dict()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("relu", nn.ReLU), ("gelu", nn.GELU), ("silu", nn.SiLU), ("mish", nn.Mish)],
)
def test_activation_is_used_in_every_block_and_the_dense_layer(name, kind):
    net = net_of(activation=name)
    assert sum(isinstance(module, kind) for module in net.modules()) == 4
    assert all(isinstance(block.activation, kind) for block in net.blocks.values())


def test_every_activation_that_params_allow_has_a_layer():
    assert list(ACTIVATIONS) == list(get_args(CNNParams.model_fields["activation"].annotation))


def test_order_of_layers_in_a_block():
    assert list(dict(net_of().blocks["conv1"].named_children())) == [
        *("conv", "norm", "activation", "pool")
    ]
    assert list(dict(net_of(batch_norm=False).blocks["conv1"].named_children())) == [
        *("conv", "activation", "pool")
    ]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_convolution_has_a_bias_only_without_batch_norm(batch_norm):
    net = net_of(batch_norm=batch_norm)
    assert all((block.conv.bias is None) == batch_norm for block in net.blocks.values())


def test_norm_comes_last_where_it_follows_the_activation():
    block = net_of(norm_after_activation=True).blocks["conv1"]
    assert [name for name, _ in block.named_children()] == ["conv", "activation", "pool", "norm"]
    assert block.conv.bias is not None


@pytest.mark.parametrize("size", [16, 24, 40])
def test_average_pooling_takes_photos_of_any_size(size):
    net = net_of(pooling="average").eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = net.forward_features(images)
    expected = net.classifier[2:](features.mean((2, 3)))
    torch.testing.assert_close(net(images), expected)
    assert net.classifier.dense.in_features == 16


def test_without_a_dense_layer_the_output_sees_the_features():
    net = net_of(num_neurons_dense=0)
    assert [name for name, _ in net.classifier.named_children()] == ["flatten", "dropout", "output"]
    assert net.classifier.output.in_features == 16 * 2 * 2


@pytest.mark.parametrize("norm_after", [False, True])
def test_a_residual_unit_adds_two_convolutions_of_the_same_shape(norm_after):
    net = net_of(residual_units=2, norm_after_activation=norm_after)
    block = net.blocks["conv2"]
    unit = block.residual2
    convolutions = [layer for layer in unit.layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(8, 8), (8, 8)]
    features = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    unit.eval()
    features = features - 0.5  # so that some sums are negative
    expected = (features + unit.layers(features)).clamp(min=0)
    assert expected.eq(0).any()
    torch.testing.assert_close(unit(features), expected)
    with torch.no_grad():  # convolutions that add nothing leave the shortcut
        for convolution in convolutions:
            convolution.weight.zero_()
            if convolution.bias is not None:
                convolution.bias.zero_()
    assert torch.equal(unit(features), features.clamp(min=0))


@pytest.mark.parametrize("changes", [{}, {"norm_after_activation": True}, {"batch_norm": False}])
def test_pooling_before_relu_changes_neither_scores_nor_gradients(changes):
    net = net_of(**changes).train()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def scores_and_gradients(run):
        torch.manual_seed(0)
        net.zero_grad()
        scores = run(images)
        scores.square().sum().backward()
        return scores.detach(), [p.grad.clone() for p in net.parameters()]

    def as_written(images):
        for block in net.features:
            for layer in block:
                images = layer(images)
        return net.forward_head(images)

    found, gradients = scores_and_gradients(net)
    expected, others = scores_and_gradients(as_written)
    assert torch.equal(found, expected)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other)


def test_dropout_acts_in_training_only():
    net = net_of(dropout=0.5, num_neurons_dense=256)
    assert net.classifier.dropout.p == 0.5
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net.eval()
    assert torch.equal(net(images), net(images))
    net.train()
    net.features.eval()
    torch.manual_seed(0)
    assert not torch.equal(net(images), net(images))


def test_forward_by_hand():
    # One 1×1 filter computes red + 0.5; ReLU and pooling keep the largest of four values, if it is
    # positive. A dense layer has one neuron, and the two classes get 1 and -2 times its value.
    net = net_of(
        image_size=2,
        num_classes=2,
        conv_layers=1,
        first_layer_filters=1,
        kernel_size=1,
        batch_norm=False,
        num_neurons_dense=1,
    )
    with torch.no_grad():
        net.blocks["conv1"].conv.weight.copy_(torch.tensor([1.0, 0, 0])[None, :, None, None])
        net.blocks["conv1"].conv.bias.fill_(0.5)
        net.classifier.dense.weight.fill_(3.0)
        net.classifier.dense.bias.fill_(0.25)
        net.classifier.output.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        net.classifier.output.bias.copy_(torch.tensor([0.0, 1.0]))
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[-9.0, 1.0], [0.0, -1.0]])
    images[0, 1:] = 7.0  # the filter ignores green and blue
    # max(-8.5, 1.5, 0.5, -0.5) = 1.5; 3 * 1.5 + 0.25 = 4.75
    torch.testing.assert_close(net(images), torch.tensor([[4.75, -8.5]]))


@pytest.mark.parametrize(
    ("image_size", "conv_layers", "allowed"), [(16, 5, 4), (31, 5, 4), (32, 6, 5), (8, 4, 3)]
)
def test_an_image_that_vanishes_is_refused(image_size, conv_layers, allowed, make_params):
    with pytest.raises(ValidationError, match=f"to nothing; allowed: 1 to {allowed}"):
        _ = Params.model_validate(
            with_size(make_params().model_dump(), image_size=image_size, conv_layers=conv_layers)
        )
    fits = with_size(make_params().model_dump(), image_size=image_size, conv_layers=allowed)
    assert Params.model_validate(fits).model.conv_layers == allowed


def with_size(values, *, image_size, conv_layers):
    values["data"]["image_size"] = image_size
    values["model"]["conv_layers"] = conv_layers
    return values


@pytest.mark.parametrize("kernel_size", [2, 4, 10, 0, 13, [], [3, 4, 3], "3", [3, True, 3]])
def test_kernels_that_are_not_odd_and_small_are_refused(kernel_size):
    match = f"model.kernel_size: found {re.escape(repr(kernel_size))}; allowed: an odd number"
    with pytest.raises(ValidationError, match=match):
        params_of(kernel_size=kernel_size)


@pytest.mark.parametrize("filters", [[], [4, 0, 4], [4, 8193, 4], "all", 4, [4, 4.0, 4], [True]])
def test_filters_that_are_no_list_of_counts_are_refused(filters):
    match = (
        f"model.filters: found {re.escape(repr(filters))}; allowed: auto, or a list of 1 to 8192"
    )
    with pytest.raises(ValidationError, match=match):
        params_of(filters=filters)


@pytest.mark.parametrize(("name", "value"), [("filters", [4, 8]), ("kernel_size", [3, 3, 3, 3])])
def test_a_list_of_another_length_than_blocks_is_refused(name, value):
    match = f"model.{name}: found {len(value)} entries; allowed: one for each of .*conv_layers: 3"
    with pytest.raises(ValidationError, match=match):
        params_of(**{name: value})


def test_each_block_has_its_own_kernel():
    net = net_of(kernel_size=[5, 1, 3])
    assert [block.conv.kernel_size for block in net.blocks.values()] == [(5, 5), (1, 1), (3, 3)]
    assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


def test_no_block_has_more_than_max_filters():
    assert params_of(max_filters=12).widths == [4, 8, 12]
    assert params_of(max_filters=12, filters=[5, 13, 7]).widths == [5, 13, 7]
    with pytest.raises(ValidationError, match=r"first_layer_filters: found 4; .* at most .*, 3"):
        params_of(max_filters=3)
