"""Which layers of a network are drawn, and which networks guided backprop has a rule for."""

import pytest
import timm
import torch

from fieldguide.figures.drawn_layers import as_maps, filters_of, guided_layer, stages_of


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet10t", "layer4.0.act2"),  # ReLU
        ("tf_efficientnet_lite0", "bn2.act"),  # ReLU6
        ("efficientnet_b0", None),  # SiLU, and gates with a sigmoid
        ("regnety_002", None),  # ReLU, but gates with a sigmoid
        ("mobilenetv3_small_050", None),  # hard swish
        ("test_vit", None),  # GELU and attention
        ("test_convnext", None),  # GELU
        ("skresnet18", None),  # ReLU, but gates with a softmax that is no module
        ("resnest14d", None),  # ReLU, but gates with a softmax
        ("densenet121", "features.norm5.act"),
    ],
)
def test_guided_backprop_needs_a_rule_for_every_layer(name, last):
    with torch.device("meta"):  # without weights
        layer = guided_layer(timm.create_model(name))
    assert (layer and layer[0]) == last


@pytest.mark.parametrize(
    ("name", "first", "stages"),
    [
        ("resnet10t", "conv1.0", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("test_vit", "patch_embed.proj", [f"blocks.{k}" for k in (1, 3, 5)]),
    ],
)
def test_drawn_layers_by_name(name, first, stages):
    net = timm.create_model(name)
    ((found, conv),) = filters_of(net)
    assert (found, conv.in_channels) == (first, 3)
    assert [layer for layer, _ in stages_of(net)] == stages


class Net(torch.nn.Module):
    """Has the attributes by which timm's networks describe the layout of their features."""

    def __init__(self, output_fmt="NCHW", num_prefix_tokens=0):
        super().__init__()
        self.output_fmt, self.num_prefix_tokens = output_fmt, num_prefix_tokens


def test_layouts_by_hand():
    """Feature f at row r and column c holds 100 f + 10 r + c."""
    expected = torch.tensor(
        [[[0, 1], [10, 11]], [[100, 101], [110, 111]], [[200, 201], [210, 211]]]
    )
    assert torch.equal(as_maps(Net(), expected[None]), expected)
    assert torch.equal(as_maps(Net("NHWC"), expected.permute(1, 2, 0)[None]), expected)
    tokens = expected.flatten(1).T  # (4, 3)
    assert torch.equal(as_maps(Net(), tokens[None]), expected)
    with_class = torch.cat([torch.full((1, 3), -1), tokens])
    assert torch.equal(as_maps(Net(num_prefix_tokens=1), with_class[None]), expected)
    assert as_maps(Net(), with_class[None]) is None  # five tokens are no square
    assert as_maps(Net(), torch.zeros(1, 3)) is None
