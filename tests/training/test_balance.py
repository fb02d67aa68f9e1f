"""Training on classes of unequal size: weights, the sampler and logit adjustment."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from curves import curves_of
from sklearn.metrics import balanced_accuracy_score, f1_score
from test_loop import STILL, scores_of, smoothed_loss

from fieldguide.core.store import Store
from fieldguide.network.bundle import load_bundle
from fieldguide.prepare.prepare import prepare
from fieldguide.training.balance import class_weights, imbalance_hint, log_priors, make_loss

CPU = torch.device("cpu")
KINDS = ["none", "weights", "sampler", "logit_adjustment"]
PHOTOS = [24, 6, 3]  # to train, of ant, bee and crab


@pytest.fixture(scope="module")
def uneven(make_photos, make_params, pack, tmp_path_factory):
    """A store of 24, 6 and 3 photos to train, and 4, 2 and 6 to validate."""
    folder = tmp_path_factory.mktemp("uneven")
    files = {}
    for split, counts in {"train": PHOTOS, "val": [4, 2, 6], "test": [2, 2, 2]}.items():
        for k, (name, each) in enumerate(zip(("ant", "bee", "crab"), counts, strict=True)):
            files |= make_photos(split, (name,), each, seed=10 * len(split) + k)
    changes = {"archive": str(pack(folder / "photos.zip", files)), "image_size": 16}
    prepare(make_params(data=changes, model={"conv_layers": 2}).data, folder / "prepared")
    return Store(folder / "prepared")


def loss_of(photos, *, smoothing=0.0, beta=1.0, balance="weights"):
    params = SimpleNamespace(balance=balance, balance_beta=beta, label_smoothing=smoothing)
    return make_loss(params, photos, CPU)


def test_weights_by_hand():
    # 1/4 and 1 of 4 + 1 photos: the sum over photos is 2, and their mean shall be 1.
    assert class_weights([4, 1, 0], 1.0) == [0.625, 2.5, 0.0]
    # 1 / (1 - 0.5^4) = 16/15 and 1 / (1 - 0.5) = 2: the sum over photos is 94/15.
    assert class_weights([4, 1], 0.5) == [0.851064, 1.595745]  # 40/47 and 75/47
    assert class_weights([4, 1], 0.0) == [1, 1]
    assert class_weights([7, 7], 0.999) == [1, 1]


def test_priors_by_hand():
    assert log_priors([6, 2, 0]) == [-0.287682, -1.386294, -2.079442]  # ln 3/4, 1/4, 1/8


# Probabilities 1/4 and 3/4.
SCORES = torch.tensor([0.0, math.log(3)])
LOSSES = math.log(4), math.log(4 / 3)  # of labels 0 and 1


def test_the_weighted_loss_is_a_mean_over_photos():
    loss = loss_of([3, 1])  # weights 2/3 and 2
    labels = torch.tensor([0, 1, 0, 0])
    expected = (3 * 2 / 3 * LOSSES[0] + 2 * LOSSES[1]) / 4
    scores = SCORES.expand(4, 2)
    assert float(loss(scores, labels)) == pytest.approx(expected, rel=1e-5)
    # Two processes with one and three photos: their means, by photos, have the same sum.
    shared = loss(scores[:1], labels[:1]) * 1 + loss(scores[1:], labels[1:]) * 3
    assert float(shared) / 4 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_photo_counts_as_its_photos_by_their_shares(smoothing):
    loss = loss_of([3, 1], smoothing=smoothing)
    scores = SCORES.expand(1, 2)
    alone = [float(loss(scores, torch.tensor([label]))) for label in (0, 1)]
    for share in (1.0, 0.7, 0.0):
        mixed = loss(scores, torch.tensor([[share, 1 - share]]))
        expected = share * alone[0] + (1 - share) * alone[1]
        assert float(mixed) == pytest.approx(expected, rel=1e-5)
    smooth = [(1 - smoothing) * one + smoothing * sum(LOSSES) / 2 for one in LOSSES]
    assert alone == pytest.approx([2 / 3 * smooth[0], 2 * smooth[1]], rel=1e-5)


def test_logit_adjustment_adds_the_logarithm_of_the_priors():
    loss = loss_of([3, 1], balance="logit_adjustment")
    equal = torch.zeros(1, 2)  # the adjusted probabilities are the priors
    assert float(loss(equal, torch.tensor([1]))) == pytest.approx(math.log(4), rel=1e-5)
    assert float(loss(equal, torch.tensor([[1.0, 0.0]]))) == pytest.approx(
        math.log(4 / 3), rel=1e-5
    )
    # A score of ln 3 of the rare class makes up for its prior: both are 1/2.
    assert float(loss(SCORES[None], torch.tensor([1]))) == pytest.approx(math.log(2), rel=1e-5)


def train_loss_by_hand(kind, split, scores):
    """Return the mean training loss of a network that does not change."""
    if kind == "logit_adjustment":
        scores = scores + torch.tensor(PHOTOS).div(sum(PHOTOS)).log()
    each = [
        smoothed_loss(scores[k : k + 1], split.labels[k : k + 1], 0.1) for k in range(len(split))
    ]
    weights = {"weights": sum(PHOTOS) / 3 / np.array(PHOTOS)[split.labels]}.get(kind, 1.0)
    return float(np.mean(weights * np.array(each)))


@pytest.mark.parametrize("kind", ["none", "weights", "logit_adjustment"])
def test_only_the_training_loss_is_balanced(kind, run_training, uneven):
    files = run_training(on=uneven, **STILL, epochs=1, balance=kind, batch_size=7)
    curves, bundle = curves_of(files["curves.csv"]), load_bundle(Path("run/classifier"))
    train, val = (uneven.split(name) for name in ("train", "val"))
    expected = train_loss_by_hand(kind, train, scores_of(bundle, train))
    assert curves["train_loss"] == [pytest.approx(expected, rel=1e-4)]
    scores = scores_of(bundle, val)
    assert curves["val_loss"] == [pytest.approx(smoothed_loss(scores, val.labels, 0), rel=1e-4)]
    answers = val.labels, scores.argmax(1).numpy()
    assert curves["val_acc"] == [pytest.approx((answers[0] == answers[1]).mean(), abs=1e-6)]
    macro_f1, bal_acc = f1_score(*answers, average="macro"), balanced_accuracy_score(*answers)
    assert curves["val_macro_f1"] == [pytest.approx(macro_f1, abs=1e-6)]
    assert curves["val_bal_acc"] == [pytest.approx(bal_acc, abs=1e-6)]


@pytest.mark.parametrize("kind", ["weights", "sampler", "logit_adjustment"])
def test_features_of_frozen_blocks_are_balanced_too(kind, run_training, uneven):
    run_training("first", on=uneven, epochs=1)
    shutil.copytree("first/classifier", "models/weights/old")
    changes = {"on": uneven, "epochs": 2, "model": {"weights": "old", "finetune": "head"}}
    plain = run_training("plain", **changes)
    balanced = run_training("balanced", **changes, balance=kind)
    for name in ("classifier/model.safetensors", "curves.csv"):
        assert plain[name] != balanced[name]


def test_classes_are_counted_in_all_photos_that_are_trained_on(run_training, uneven, capsys):
    changes = {"on": uneven, "epochs": 1}
    run_training("train", **changes)
    assert "24 training photos of ant, 3 of crab; train.balance" in capsys.readouterr().out
    run_training("both", **changes, train_on_val=True)  # 28, 8 and 9
    assert "28 training photos of ant, 8 of bee; train.balance" in capsys.readouterr().out


def test_the_hint_is_printed_once_and_only_without_balance(run_training, interrupt, uneven, capsys):
    interrupt(2, on=uneven)
    assert run_training(on=uneven)
    assert "Going on after epoch" in (printed := capsys.readouterr().out)
    assert "imbalanced" not in printed
    for kind in KINDS[1:]:
        run_training(kind, on=uneven, balance=kind, epochs=1)
        assert "imbalanced" not in capsys.readouterr().out


def test_the_hint_begins_above_three_to_one():
    assert imbalance_hint([9, 3], ["a", "b"]) is None
    assert imbalance_hint([3, 0], ["a", "b"]) is not None
    assert imbalance_hint([2, 3000, 2], ["a\x1b", "b", "c"]) == (
        "Classes are imbalanced: 3,000 training photos of b, 2 of a\ufffd; train.balance makes up "
        "for it (docs/recipe.md)"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mix", [{}, {"mixup": 0.5, "cutmix": 0.5}, {"precision": "bf16-mixed"}])
def test_every_kind_trains_with_balanced_classes_mixed_photos_and_bf16(kind, mix, run_training):
    files = run_training(epochs=2, balance=kind, balance_beta=0.9, **mix)
    assert json.loads(files["metrics/metrics.json"])["best"]["val_loss"] > 0
