"""Grad-CAM, compared with Captum's and with values computed by hand."""

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.nn import functional as F

from fieldguide.figures.cam import grad_cam
from fieldguide.network.cnn import CNN


@pytest.mark.parametrize(
    ("name", "layer"),
    [("test_resnet", "layer4"), ("test_efficientnet", "bn2")],
)
def test_equals_captums_for_convolutional_networks(name, layer):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=4).eval()
    for module in net.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # Captum's hooks need it
    image = torch.randn(1, 3, 64, 64)
    for label in range(4):
        found = grad_cam(net, image, label)
        coarse = LayerGradCam(net, net.get_submodule(layer)).attribute(
            image, target=label, relu_attributions=True
        )
        expected = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(found, expected.detach())
        assert found.shape == (64, 64)


def test_equals_captums_for_the_cnn(make_params):
    model = make_params(data={"image_size": 16}, model={"conv_layers": 2}).model
    torch.manual_seed(0)
    net = CNN(model, image_size=16, num_classes=3).eval()
    image = torch.randn(1, 3, 16, 16)
    coarse = LayerGradCam(net, net.features).attribute(image, target=1, relu_attributions=True)
    expected = F.interpolate(coarse, (16, 16), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(grad_cam(net, image, 1), expected.detach())


class Tokens(nn.Module):
    """A class token and 2 × 2 places a, b, c, d; the score is 7 · token + 1a + 2b + 3c + 4d."""

    num_prefix_tokens = 1

    def __init__(self):
        super().__init__()
        block = nn.Module()
        block.norm1 = nn.Identity()
        self.blocks = nn.Sequential(block)

    def forward(self, images):
        places = F.avg_pool2d(images[:, :1], 2).flatten(2).transpose(1, 2)  # (B, 4, 1)
        tokens = torch.cat([torch.full_like(places[:, :1], 100.0), places], dim=1)
        tokens = self.blocks[0].norm1(tokens)
        weights = torch.tensor([7.0, 1.0, 2.0, 3.0, 4.0])
        return (tokens[..., 0] * weights).sum(dim=1, keepdim=True)


def test_tokens_by_hand():
    """Heat of a place: the mean slope (1 + 2 + 3 + 4) / 4 = 2.5 times its feature, at least 0."""
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0] = (
        torch.tensor([[1.0, -1.0], [2.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    )
    net = Tokens()
    found = grad_cam(net, image, 0)
    coarse = torch.tensor([[[[2.5, 0.0], [5.0, 10.0]]]])
    torch.testing.assert_close(found, F.interpolate(coarse, (4, 4), mode="bilinear")[0, 0])
    assert not net.blocks[0].norm1._forward_hooks
    assert not image.requires_grad


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_other_layouts_give_a_finite_map(name):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3).eval()
    heat = grad_cam(net, torch.randn(1, 3, 160, 160), 2)
    assert heat.shape == (160, 160)
    assert np.isfinite(heat.numpy()).all()
    assert heat.min() >= 0
