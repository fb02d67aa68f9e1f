"""The files that `evaluate` writes, and what it prints."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fieldguide.core.errors import BundleError, StoreError
from fieldguide.core.store import Store
from fieldguide.evaluation.evaluate import evaluate_bundle
from fieldguide.evaluation.predict import predict_split
from fieldguide.network.bundle import Bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing


@pytest.fixture
def params(make_params):
    return make_params(
        data={"image_size": 16},
        model={"conv_layers": 2, "first_layer_filters": 4, "num_neurons_dense": 8},
        evaluate={"calibration_bins": 5},
    )


@pytest.fixture
def bundle(store, params):
    torch.manual_seed(0)
    return Bundle(
        net=CNN(params.model, image_size=16, num_classes=3),
        architecture=params.model.architecture,
        classes=store.classes,
        image_size=16,
        resize="crop",
        preprocessing=Preprocessing(16, "bilinear", store.mean, store.std),
        val_acc=0.5,
        started_from="none",
        calibration=Calibration(temperature=0.25, target_precision=0.6, min_confidence=0.4),
    )


@pytest.fixture
def run(store, params, tmp_path):
    """Evaluates a classifier and returns the paths of what was written, by file name."""

    def evaluate(bundle, of=store, **changes):
        settings = params.evaluate.model_copy(update=changes)
        metrics, plots = tmp_path / "metrics", tmp_path / "plots"
        evaluate_bundle(bundle, of, settings, metrics=metrics, plots=plots)
        return {path.name: path for folder in (metrics, plots) for path in folder.iterdir()}

    return evaluate


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_outputs_agree_with_the_predictions(run, bundle, store, capsys):
    written = run(bundle)
    assert sorted(written) == [
        *("confusion.csv", "per_class.csv", "predictions.csv", "reliability.csv"),
        *("risk_coverage.csv", "test.json", "trust.json"),
    ]
    test = store.split("test")
    probabilities = predict_split(bundle, test)
    names = np.array(store.classes)
    truth, guess = names[test.labels], names[probabilities.argmax(axis=1)]

    rows = read(written["predictions.csv"])
    assert [row["source"] for row in rows] == test.sources
    assert [row["true"] for row in rows] == truth.tolist()
    assert [row["predicted"] for row in rows] == guess.tolist()
    pairs = [(row["actual"], row["predicted"]) for row in read(written["confusion.csv"])]
    assert pairs == list(zip(truth, guess, strict=True))

    metrics = json.loads(written["test.json"].read_text(encoding="utf-8"))
    assert list(metrics) == ["test"]
    assert list(metrics["test"]) == ["acc", "bal_acc", "macro_f1", "top3_acc", "ece", "coverage"]
    accuracy = (truth == guess).mean()
    assert metrics["test"]["acc"] == pytest.approx(accuracy, abs=1e-6)
    # The classes have five photos each, so that the mean of their recalls is the accuracy.
    assert metrics["test"]["bal_acc"] == metrics["test"]["acc"]
    assert metrics["test"]["top3_acc"] == 1

    per_class = read(written["per_class.csv"])
    assert list(per_class[0]) == ["class", "precision", "recall", "photos"]
    assert [row["class"] for row in per_class] == store.classes
    for row in per_class:
        name = row["class"]
        hits = (guess[truth == name] == name).sum()
        called = (guess == name).sum()
        assert int(row["photos"]) == 5
        assert float(row["recall"]) == hits / 5  # written in full precision
        assert float(row["precision"]) == (hits / called if called else 0)

    points = read(written["reliability.csv"])
    assert list(points[0]) == ["confidence", "accuracy", "photos"]
    counts = [int(row["photos"]) for row in points]
    assert sum(counts) == 15
    assert all(count > 0 for count in counts)
    hits = [float(row["accuracy"]) * count for row, count in zip(points, counts, strict=True)]
    assert sum(hits) == pytest.approx((truth == guess).sum())
    sums = [float(row["confidence"]) * count for row, count in zip(points, counts, strict=True)]
    assert sum(sums) == pytest.approx(probabilities.max(axis=1).sum())

    printed = capsys.readouterr().out
    assert all(name in printed for name in store.classes)
    assert f"test accuracy {accuracy:.2%} (95 % interval" in printed
    assert (
        f"balanced accuracy {accuracy:.2%}, macro F1 {metrics['test']['macro_f1']:.3f}" in printed
    )


def test_calibration_before_and_after_and_what_can_be_trusted(run, bundle, store, capsys):
    test = store.split("test")
    after = predict_split(bundle, test)
    middle = float(np.median(after.max(axis=1)))
    bundle = replace(bundle, calibration=replace(bundle.calibration, min_confidence=middle))
    written = run(bundle)
    before = predict_split(replace(bundle, calibration=None), test)
    trust = json.loads(written["trust.json"].read_text(encoding="utf-8"))
    for key, rows in (("nll", after), ("nll_before", before)):
        true = rows[np.arange(15), test.labels]
        assert trust[key] == pytest.approx(-np.log(true).mean(), abs=1e-6)
    metrics = json.loads(written["test.json"].read_text(encoding="utf-8"))["test"]
    assert trust["ece"] == metrics["ece"] != trust["ece_before"]
    sure = after.max(axis=1) >= middle
    hits = after.argmax(axis=1) == test.labels
    assert 0 < sure.sum() < 15
    assert (trust["photos"], trust["accepted"]) == (15, sure.sum())
    assert trust["right"] == (sure & hits).sum()
    assert metrics["coverage"] == pytest.approx(sure.mean(), abs=1e-6)
    assert (trust["temperature"], trust["target_precision"]) == (0.25, 0.6)
    points = read(written["risk_coverage.csv"])
    assert list(points[0]) == ["coverage", "risk", "confidence"]
    assert float(points[-1]["risk"]) == pytest.approx(1 - hits.mean())
    assert f"NLL {trust['nll_before']:.3f}" in (printed := capsys.readouterr().out)
    assert f"{sure.mean():.1%} of photos can be taken as they come" in printed


def test_a_classifier_without_calibration_says_so(run, bundle, capsys):
    written = run(replace(bundle, calibration=None))
    trust = json.loads(written["trust.json"].read_text(encoding="utf-8"))
    assert (trust["temperature"], trust["min_confidence"], trust["accepted"]) == (None, None, 0)
    assert trust["nll"] == trust["nll_before"]
    assert json.loads(written["test.json"].read_text(encoding="utf-8"))["test"]["coverage"] == 0
    assert "Not calibrated, because the validation photos were trained on" in (
        capsys.readouterr().out
    )


def test_flip_averaging_is_reported_separately(bundle, run, store, capsys):
    plain = json.loads(run(bundle)["test.json"].read_text(encoding="utf-8"))
    written = run(bundle, flip_averaging=True)
    found = json.loads(written["test.json"].read_text(encoding="utf-8"))
    assert found["test"] == plain["test"]
    test = store.split("test")
    pixels = torch.from_numpy(test.images(np.arange(len(test)))).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (store.mean, store.std))
    with torch.no_grad():
        images = (pixels - mean) / std
        net = bundle.net.eval()
        # At a temperature of 0.25.
        both = (4 * net(images)).softmax(1) + (4 * net(images.flip(3))).softmax(1)
    expected = float((both.argmax(1).numpy() == test.labels).mean())
    assert found["test_flip_averaged"] == {"acc": pytest.approx(expected, abs=1e-6)}
    assert f"averaged over photo and mirror image: test accuracy {expected:.2%}" in (
        capsys.readouterr().out
    )


def test_grouped_test_photos_are_told_beside_the_interval(run, bundle, store, tmp_path, capsys):
    run(bundle)
    assert "groups" not in capsys.readouterr().out
    folder = shutil.copytree(store.folder, tmp_path / "store")
    lines = [f"burst {k // 5},test" for k in range(15)]
    (folder / "groups.csv").write_text("\n".join(["group,split", *lines]), encoding="utf-8")
    run(bundle, Store(folder))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "The 15 test photos are 3 groups: photos of one group are not independent, so the "
        "intervals are too narrow (docs/splits.md)"
    )


def test_evaluating_twice_gives_the_same_bytes(run, bundle):
    first = {name: path.read_bytes() for name, path in run(bundle).items()}
    assert {name: path.read_bytes() for name, path in run(bundle).items()} == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["ant", "bee", "dog"]}, "knows ant, bee, dog; the prepared store has"),
        ({"classes": ["bee", "ant", "crab"]}, "knows bee, ant, crab"),
        ({"image_size": 32}, "takes 32 pixels .* has 16 pixels"),
    ],
    ids=["other classes", "other order", "other size"],
)
def test_a_classifier_of_another_store_is_refused(change, message, run, bundle, tmp_path):
    other = Bundle(**(vars(bundle) | change))
    with pytest.raises(BundleError, match=message):
        run(other)
    assert not list(tmp_path.iterdir())


def test_an_empty_test_split_is_refused(run, bundle, store, tmp_path):
    """As when every photo of the test folder is too small."""
    folder = tmp_path / "store"
    shutil.copytree(store.folder, folder)
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    description["shards"]["test"] = []
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(StoreError, match="test split is empty"):
        run(bundle, Store(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
