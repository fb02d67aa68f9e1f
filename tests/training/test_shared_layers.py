"""Shared batch norm and dropout against those of PyTorch on the whole batch."""

from functools import partial

import pytest
import torch
from forked import fork
from torch import distributed, nn

from fieldguide.training.shared_layers import RankSlice, share_layers

pytestmark = pytest.mark.slow

# Photos per process: equal, unequal, and a process with a single photo.
SLICES = [(4, 4), (5, 3), (7, 1), (3, 2, 2)]


def run_rank(rank, sizes, folder):
    """Run the slice of one process and save the results in a file."""
    address = f"file://{folder}/group"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=len(sizes))
    start = sum(sizes[:rank])
    rank_slice = RankSlice(slice(start, start + sizes[rank]), sum(sizes))
    found = {}
    for name, net in networks().items():
        share_layers(net, rank_slice)
        images, upper = inputs(name, sum(sizes))
        own = images[rank_slice.rows].clone().requires_grad_()
        torch.manual_seed(3)
        scores = net(own)
        (scores * upper[rank_slice.rows]).sum().backward()
        found[name] = {
            "scores": scores.detach(),
            "by_images": own.grad,
            "by_weights": {key: value.grad for key, value in net.named_parameters()},
            "state": net.state_dict(),
            "weight": rank_slice.weight,
        }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def networks():
    """Return networks by name, the same in every process."""
    torch.manual_seed(0)
    frozen = nn.BatchNorm2d(5)
    frozen.running_mean.normal_()
    return {
        "images": nn.BatchNorm2d(5),
        "channels last": nn.BatchNorm2d(5).to(memory_format=torch.channels_last),
        "features": nn.BatchNorm1d(5),
        "without weights": nn.BatchNorm2d(5, affine=False),
        "frozen": frozen.eval(),
        "dropout": nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.4)),
    }


def inputs(name, count):
    """Return photos and the gradient of their scores."""
    torch.manual_seed(1)
    shape = (count, 5) if name in ("features", "dropout") else (count, 5, 3, 2)
    # Far from zero, where sums of squares would lose the variance.
    images = torch.randn(shape) * 2 + 30
    if name == "channels last":
        images = images.contiguous(memory_format=torch.channels_last)
    upper = torch.randn((count, 40) if name == "dropout" else shape)
    return images, upper


@pytest.mark.parametrize("sizes", SLICES, ids=str)
def test_shared_layers_equal_those_of_one_process_with_the_whole_batch(sizes, tmp_path):
    processes = [fork(run_rank, rank, sizes, tmp_path) for rank in range(len(sizes))]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(sizes))]
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    for name, net in networks().items():
        images, upper = inputs(name, sum(sizes))
        images.requires_grad_()
        torch.manual_seed(3)
        scores = net(images)
        (scores * upper).sum().backward()
        ranks = [each[name] for each in found]
        close(torch.cat([rank["scores"] for rank in ranks]), scores.detach(), msg=name)
        close(torch.cat([rank["by_images"] for rank in ranks]), images.grad, msg=name)
        for key, value in net.named_parameters():
            close(sum(rank["by_weights"][key] for rank in ranks), value.grad, msg=name)
        for rank, size in zip(ranks, sizes, strict=True):
            assert rank["weight"] == pytest.approx(size * len(sizes) / sum(sizes))
            assert rank["state"].keys() == net.state_dict().keys()
            for key, value in net.state_dict().items():
                close(rank["state"][key], value, msg=f"{name} {key}")


def test_the_activation_inside_batch_norm_of_timm_still_acts(monkeypatch):
    """With a single process shared batch norm equals PyTorch's."""
    from timm.layers import BatchNormAct2d  # noqa: PLC0415 - slow to import

    monkeypatch.setattr(distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(distributed, "all_gather", lambda every, own: every[0].copy_(own))
    monkeypatch.setattr(distributed, "all_reduce", lambda sums: sums)
    plain, shared = BatchNormAct2d(5, inplace=False), BatchNormAct2d(5, inplace=False)
    share_layers(shared, RankSlice())
    images = torch.randn(4, 5, 3, 3)
    assert (plain(images) == 0).any()
    torch.testing.assert_close(shared(images), plain(images))
