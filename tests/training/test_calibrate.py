"""Temperature and smallest confidence: by hand, by another method, and by simulation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from fieldguide.network.bundle import load_bundle
from fieldguide.network.calibration import Calibration
from fieldguide.training.calibrate import (
    calibrate,
    describe,
    find_min_confidence,
    find_temperature,
)


def two_classes(gap, right, wrong):
    """Scores of photos of class 0, of which some are taken for class 1, all equally surely."""
    rows = [[gap, 0.0]] * right + [[0.0, gap]] * wrong
    return torch.tensor(rows, dtype=torch.float64), torch.zeros(len(rows), dtype=torch.int64)


@pytest.mark.parametrize(("gap", "right", "wrong"), [(2.0, 3, 1), (0.5, 3, 1), (4.0, 19, 1)])
def test_temperature_by_hand(gap, right, wrong):
    """The best probability is the share of right photos: sigmoid(gap / T) = right / all."""
    expected = gap / math.log(right / wrong)
    assert find_temperature(*two_classes(gap, right, wrong)) == round(expected, 4)


def test_temperature_has_the_lowest_nll_and_does_not_depend_on_the_order():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (200,), generator=generator)
    scores = torch.randn(200, 5, generator=generator).double() * 4
    scores[torch.arange(200), labels] += 3

    def nll(log_temperature):
        logs = (scores / math.exp(log_temperature)).log_softmax(dim=1)
        return -logs.gather(1, labels[:, None]).mean().item()

    best = minimize_scalar(nll, bounds=(-2, 2), method="bounded", options={"xatol": 1e-9})
    found = find_temperature(scores, labels)
    assert found == pytest.approx(math.exp(best.x), rel=1e-4)
    assert 4 < found < 8
    order = torch.randperm(200, generator=generator)
    assert find_temperature(scores[order], labels[order]) == found


def test_temperature_stays_in_its_range():
    assert find_temperature(*two_classes(2.0, 4, 0)) == 1  # no minimum: all are right
    assert find_temperature(*two_classes(2.0, 1, 1)) == 10  # no better than chance
    assert find_temperature(*two_classes(0.001, 3, 1)) == 0.1


def test_smallest_confidence_by_hand():
    """0.95^59 is 4.85 %, and 0.95^58 is 5.10 %: 59 photos without a mistake are needed."""
    for right, expected in ((59, 0.501), (58, None)):
        confidence = np.array([0.9] * right + [0.5] * 100)
        hits = np.array([True] * right + [False] * 100)
        assert find_min_confidence(confidence, hits, 0.95) == expected
    # All photos: nothing needs to be unsure.
    assert find_min_confidence(np.full(60, 0.4), np.ones(60, dtype=bool), 0.95) == 0
    assert find_min_confidence(np.full(60, 0.4), np.zeros(60, dtype=bool), 0.95) is None
    # Two of three, by chance, show nothing.
    assert find_min_confidence(np.array([0.9, 0.8, 0.7]), np.array([1, 1, 0], bool), 0.6) is None


def test_smallest_confidence_is_the_lowest_whose_interval_reaches_the_target():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 800)
    right = rng.random(800) < confidence
    found = find_min_confidence(confidence, right, 0.8)
    assert 0.5 < found < 0.9

    def low(threshold):  # of the one-sided 95 % interval
        hits = right[confidence >= threshold]
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.9, method="exact")
        return exact.low

    assert low(found) >= 0.8
    assert all(low(k / 1000) < 0.8 for k in range(round(1000 * found)))


@pytest.mark.parametrize("photos", [200, 1000])
def test_a_chosen_confidence_misses_the_target_in_at_most_5_percent_of_trainings(photos):
    """Though a thousand confidences are tried; here the classifier is perfectly calibrated."""
    rng = np.random.default_rng(2)
    missed, trainings = 0, 400
    for _ in range(trainings):
        confidence = rng.beta(3, 0.8, photos)
        found = find_min_confidence(confidence, rng.random(photos) < confidence, 0.9)
        if found is not None:
            new = rng.beta(3, 0.8, 20_000)
            missed += new[new >= found].mean() < 0.9  # precision on endless new photos
    # 5 % of 400 are 20; more than 29 would have a probability of 1 %.
    assert missed <= 29


@pytest.mark.parametrize("photos", [300, 1000])
def test_it_misses_by_more_than_a_point_in_at_most_5_percent_of_trainings(photos):
    """Also in the hardest case: with confidence, precision grows to just below the target."""
    rng = np.random.default_rng(3)
    short = np.zeros(400)
    for k in range(len(short)):
        confidence = rng.random(photos)
        precision = np.minimum(confidence + 0.3, 0.948)
        found = find_min_confidence(confidence, rng.random(photos) < precision, 0.95)
        if found is not None:
            above = np.linspace(found, 1, 1000)
            short[k] = 0.95 - np.minimum(above + 0.3, 0.948).mean()
    assert (short > 0.01).sum() <= 29
    assert (short > 0).sum() > 20  # docs/trust.md says so


def test_precision_is_measured_on_calibrated_confidences():
    scores, labels = two_classes(2.0, 90, 10)
    found = calibrate(scores, labels, target_precision=0.8)
    # All photos have a confidence of 90 %. Of 100 photos, 87 right ones would do for 80 %.
    assert found == Calibration(round(2 / math.log(9), 4), 0.8, 0.0)
    assert calibrate(scores, labels, target_precision=0.9).min_confidence is None


def test_fewer_than_100_photos_have_no_temperature():
    scores, labels = two_classes(2.0, 80, 20)
    assert calibrate(scores, labels, target_precision=0.8).temperature != 1
    assert calibrate(scores[1:], labels[1:], target_precision=0.8).temperature == 1


@pytest.mark.parametrize("model", [{}, {"weights": "old", "finetune": "head"}])
def test_the_kept_network_is_calibrated_on_the_validation_photos(model, run_training, store):
    if model:
        run_training("first", epochs=2)
        Path("models/weights").mkdir(parents=True)
        Path("first/classifier").rename("models/weights/old")
    run_training(epochs=2, target_precision=0.6, model=model)
    bundle, split = load_bundle(Path("run/classifier")), store.split("val")
    pixels = torch.from_numpy(split.images(np.arange(len(split)))).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (bundle.preprocessing.mean, bundle.preprocessing.std)
    )
    with torch.no_grad():
        scores = bundle.net((pixels - mean) / std)
    expected = calibrate(scores, torch.from_numpy(split.labels), target_precision=0.6)
    assert bundle.calibration == replace(expected, temperature=bundle.calibration.temperature)
    assert bundle.calibration.temperature == pytest.approx(expected.temperature, rel=1e-3)


def test_without_validation_photos_there_is_no_calibration(run_training, capsys):
    run_training(epochs=1, train_on_val=True)
    assert load_bundle(Path("run/classifier")).calibration is None
    assert "Not calibrated: the validation photos were trained on" in capsys.readouterr().out


def test_the_terminal_says_what_was_found():
    assert describe(Calibration(1.25, 0.95, 0.834), 100) == (
        "Temperature 1.25; answers with a confidence below 83.4% are unsure: at least 95% of the "
        "others are right on the validation photos, beyond chance"
    )
    assert describe(Calibration(1.25, 0.95, 0.0), 100).startswith(
        "Temperature 1.25; no answer is unsure: at least 95% of all are right"
    )
    assert describe(Calibration(1.25, 0.95, None), 100) == (
        "Temperature 1.25; at no confidence are 95% of the answers right on the validation photos, "
        "beyond chance"
    )
    # 0.95^59 is 4.85 %, and 0.95^58 is 5.10 %.
    few = "Temperature 1 (under 100 validation photos); "
    assert describe(Calibration(1.0, 0.95, None), 58) == (
        f"{few}58 validation photos cannot show 95%; 59 are needed"
    )
    assert describe(Calibration(1.0, 0.95, None), 59).startswith(f"{few}at no confidence")
