"""What `evaluate` writes and prints of a classifier."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from fieldguide.core.errors import BundleError, StoreError
from fieldguide.core.store import Store
from fieldguide.evaluation.evaluate import Outputs, evaluate_bundle
from fieldguide.evaluation.predict import predict_split
from fieldguide.network.bundle import Bundle
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
def run(store, params, outputs):
    return lambda bundle, of=store: evaluate_bundle(bundle, of, params.evaluate, outputs=outputs)


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
    )


@pytest.fixture
def outputs(tmp_path):
    """Where the outputs go, in the order of `Outputs`."""
    return Outputs(
        metrics=tmp_path / "metrics" / "test.json",
        per_class_metrics=tmp_path / "metrics" / "per_class.json",
        predictions=tmp_path / "metrics" / "predictions.csv",
        confusion=tmp_path / "plots" / "confusion.csv",
        reliability=tmp_path / "plots" / "reliability.csv",
        per_class=tmp_path / "plots" / "per_class.csv",
    )


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_output_tells_of_the_same_predictions(run, bundle, store, outputs, capsys):
    run(bundle)
    test = store.split("test")
    probabilities = predict_split(bundle, test)
    names = np.array(store.classes)
    truth, guess = names[test.labels], names[probabilities.argmax(axis=1)]

    rows = read(outputs.predictions)
    assert [row["source"] for row in rows] == test.sources
    assert [row["true"] for row in rows] == truth.tolist()
    assert [row["predicted"] for row in rows] == guess.tolist()
    pairs = [(row["actual"], row["predicted"]) for row in read(outputs.confusion)]
    assert pairs == list(zip(truth, guess, strict=True))

    metrics = json.loads(outputs.metrics.read_text(encoding="utf-8"))["test"]
    assert metrics["photos"] == 15
    assert metrics["acc"] == pytest.approx((truth == guess).mean(), abs=1e-6)
    assert metrics["acc_low"] < metrics["acc"] < metrics["acc_high"]
    assert metrics["top3_acc"] == 1
    per_class = json.loads(outputs.per_class_metrics.read_text(encoding="utf-8"))
    assert list(per_class) == store.classes
    for row in read(outputs.per_class):
        name = row["class"]
        assert row["photos"] == "5"
        assert float(row["recall"]) == pytest.approx(per_class[name]["recall"], abs=1e-6)
        assert float(row["precision"]) == pytest.approx(per_class[name]["precision"], abs=1e-6)
        assert float(row["recall"]) == pytest.approx((guess[truth == name] == name).mean())

    points = read(outputs.reliability)
    assert 1 <= len(points) <= 5
    assert all(0 <= float(value) <= 1 for row in points for value in row.values())
    printed = capsys.readouterr().out
    assert all(name in printed for name in store.classes)
    assert f"test accuracy {metrics['acc']:.2%}" in printed


def test_flip_averaging_is_reported_apart(bundle, store, outputs, params, capsys):
    evaluate_bundle(bundle, store, params.evaluate, outputs=outputs)
    plain = json.loads(outputs.metrics.read_text(encoding="utf-8"))
    assert list(plain) == ["test"]
    averaging = params.evaluate.model_copy(update={"flip_averaging": True})
    evaluate_bundle(bundle, store, averaging, outputs=outputs)
    found = json.loads(outputs.metrics.read_text(encoding="utf-8"))
    assert found["test"] == plain["test"]
    test = store.split("test")
    pixels = torch.from_numpy(test.images(np.arange(len(test)))).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (store.mean, store.std))
    with torch.no_grad():
        images = (pixels - mean) / std
        net = bundle.net.eval()
        both = net(images).softmax(1) + net(images.flip(3)).softmax(1)
    expected = float((both.argmax(1).numpy() == test.labels).mean())
    assert found["test_flip_averaged"]["acc"] == pytest.approx(expected, abs=1e-6)
    assert set(found["test_flip_averaged"]) == {"acc", "acc_low", "acc_high"}
    assert f"averaged over photo and mirror image: test accuracy {expected:.2%}" in (
        capsys.readouterr().out
    )


def test_evaluating_twice_gives_the_same_bytes(run, bundle, outputs):
    run(bundle)
    first = [path.read_bytes() for path in outputs]
    run(bundle)
    assert [path.read_bytes() for path in outputs] == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["ant", "bee", "dog"]}, "knows ant, bee, dog; the prepared store has"),
        ({"classes": ["bee", "ant", "crab"]}, "knows bee, ant, crab"),
        ({"image_size": 32}, "takes 32 pixels .* has 16 pixels"),
    ],
    ids=["other classes", "other order", "other size"],
)
def test_a_classifier_of_another_store_is_refused(change, message, run, bundle, outputs):
    other = Bundle(**(vars(bundle) | change))
    with pytest.raises(BundleError, match=message):
        run(other)
    assert not any(path.exists() for path in outputs)


def test_a_test_split_without_photos_is_refused(run, bundle, store, outputs, tmp_path):
    """As when every photo of the test folder is too small."""
    folder = tmp_path / "store"
    shutil.copytree(store.folder, folder)
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    description["shards"]["test"] = []
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(StoreError, match="test split is empty"):
        run(bundle, Store(folder))
    assert not any(path.exists() for path in outputs)
