"""Which trainings of a head share the features of photos."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.slow


@pytest.fixture
def train_head(run_training):
    """Trains the head of a network; returns the keys of all features of the train split."""

    def run(name="run", *, scale=1.0, model=None, **changes):
        torch.manual_seed(9)
        net = timm.create_model("test_resnet", num_classes=7)
        net.conv1[0].weight.data *= scale
        Path("models/weights").mkdir(parents=True, exist_ok=True)
        save_file(net.state_dict(), "models/weights/w.safetensors")
        settings = {"name": "test_resnet", "weights": "w.safetensors", "finetune": "head"}
        settings |= {"input_size": 32} | (model or {})
        run_training(name, model=settings, epochs=1, **changes)
        return {path.parent.name for path in Path(".fieldguide/features").glob("*/train-*")}

    return run


def test_trainings_that_differ_only_in_the_head_share_features(train_head, capsys):
    (first,) = train_head()
    capsys.readouterr()
    for changes in (
        {"seed": 1},
        {"learning_rate": 0.1, "optimizer": "sgd", "batch_size": 7},
        {"model": {"dropout": 0.5}},
    ):
        assert train_head(**changes) == {first}
    assert "Computing features" not in capsys.readouterr().out
    # Features without the flipped view are in the same folder.
    assert train_head(use_augmentation=False) == {first}
    assert "Computing features of 48 train photos" in capsys.readouterr().out


def test_other_weights_and_sizes_have_their_own_features(train_head):
    first = train_head()
    second = train_head(scale=2.0)
    third = train_head(model={"input_size": 48})
    assert first < second < third
    assert len(third) == 3


def test_features_of_an_experiment_in_a_workspace_are_in_its_project(
    train_head, tmp_path, monkeypatch
):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert train_head() == set()
    assert list((tmp_path / "project/.fieldguide/features").glob("*/train-2/features.npy"))
