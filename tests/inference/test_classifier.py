"""`fieldguide.load(...)`, and the answers of the classifier that it returns."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import fieldguide
from fieldguide.core.errors import BundleError, PhotoError
from fieldguide.evaluation.predict import predict_split
from fieldguide.network.bundle import load_bundle


@pytest.fixture(scope="module")
def classifier(classifier_folder):
    return fieldguide.load(str(classifier_folder), device="cpu")


@pytest.fixture(scope="module")
def photos(make_photos, tmp_path_factory):
    """Twelve files of three classes."""
    folder = tmp_path_factory.mktemp("photos")
    for name, data in make_photos(each=4, pixels=24, seed=5).items():
        (folder / name.replace("/", "_")).write_bytes(data)
    return sorted(folder.iterdir())


def expected(classifier_folder, photo):
    """Probabilities of a photo, computed step by step with Pillow, NumPy and the bare network."""
    bundle = load_bundle(classifier_folder)
    with Image.open(photo) as image:
        square = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(square) / 255
    images = (pixels - np.array(bundle.preprocessing.mean)) / np.array(bundle.preprocessing.std)
    with torch.no_grad():
        scores = bundle.net(torch.tensor(images.transpose(2, 0, 1)[None], dtype=torch.float32))
    exponents = np.exp(scores[0].double().numpy())
    return dict(zip(bundle.classes, exponents / exponents.sum(), strict=True))


def test_one_photo_by_path_string_and_bytes(classifier, classifier_folder, photos):
    by_hand = expected(classifier_folder, photos[0])
    for photo in (photos[0], str(photos[0]), photos[0].read_bytes()):
        answer = classifier.predict(photo)
        assert answer.probabilities == pytest.approx(by_hand, abs=1e-5)
        values = list(answer.probabilities.values())
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
        assert answer.label == max(by_hand, key=by_hand.get)
        assert answer.probability == values[0]
        assert answer.top(2) == dict(list(answer.probabilities.items())[:2])
        assert answer.top(99) == answer.probabilities


def test_answers_equal_those_of_evaluate_for_stored_photos(classifier, classifier_folder, store):
    split = store.split("test")
    pixels = split.images(np.arange(len(split)))
    found = classifier.probabilities(pixels)
    np.testing.assert_allclose(
        found, predict_split(load_bundle(classifier_folder), split), atol=1e-6
    )


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_many_photos_are_answered_in_order_with_errors_in_place_of_broken_ones(
    batch_size, classifier, photos
):
    several = [photos[0], b"no picture", *photos[1:8], "nowhere.jpg", b"", photos[8]]
    answers = list(classifier.predict_all(several, batch_size=batch_size))
    assert len(answers) == len(several)
    for photo, answer in zip(several, answers, strict=True):
        if photo in photos:
            one = classifier.predict(photo).probabilities
            assert answer.probabilities == pytest.approx(one, abs=1e-6)
    errors = {k: str(one) for k, one in enumerate(answers) if isinstance(one, PhotoError)}
    assert errors == {
        1: "photo: unreadable (cannot identify image file)",
        9: "nowhere.jpg: cannot be read (No such file or directory)",
        10: "photo: unreadable (the file is empty)",
    }


def test_photos_are_read_only_as_they_are_needed(classifier, photos):
    """From an endless source, only a few batches are read ahead."""
    read = []

    def endless():
        while True:
            read.append(1)
            yield photos[0]

    answers = classifier.predict_all(endless(), batch_size=4)
    for _ in range(6):
        next(answers)
    assert len(read) <= 16
    answers.close()
    assert list(classifier.predict_all([])) == []


def test_several_threads_get_the_same_answers_as_one(classifier, photos):
    alone = [classifier.predict(photo).probabilities for photo in photos]
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        if number % 3 == 2:  # explaining adds hooks, which must not change predictions
            return [classifier.explain(photo) for photo in photos[:3]]
        return [classifier.predict(photo).probabilities for photo in photos]

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(work, range(6)))
    assert results[0] == results[1] == results[3] == results[4] == alone
    assert results[2] == results[5]
    assert not [m for m in classifier.bundle.net.modules() if m._forward_hooks or m._backward_hooks]


def test_an_explanation_is_a_picture_for_the_requested_class(classifier, photos):
    label = classifier.predict(photos[0]).label
    default, same = classifier.explain(photos[0]), classifier.explain(photos[0], label)
    other = classifier.explain(photos[0], next(c for c in classifier.classes if c != label))
    assert default == same != other
    with Image.open(io.BytesIO(default)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (880, 517)
    with pytest.raises(ValueError, match="found class 'newt'; allowed: ant, bee, crab"):
        classifier.explain(photos[0], "newt")
    with pytest.raises(PhotoError, match="unreadable"):
        classifier.explain(b"no picture")


def test_anything_but_a_classifier_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"model\.json: cannot be read"):
        fieldguide.load(tmp_path)
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(
        BundleError, match=r"model\.pth: not a classifier; allowed: a classifier's folder"
    ):
        fieldguide.load(tmp_path / "model.pth")


def test_the_package_has_the_documented_names_and_no_others():
    assert fieldguide.Classifier.__name__ == "Classifier"
    assert fieldguide.Prediction.__name__ == "Prediction"
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        fieldguide.laod  # noqa: B018


def test_after_an_early_end_waiting_photos_are_not_decoded(classifier, monkeypatch):
    """An early end, such as Ctrl-C, comes at once."""
    decoded = []

    def decode_slowly(photo, **settings):
        decoded.append(photo)
        time.sleep(0.05)
        return np.zeros((16, 16, 3), dtype=np.uint8)

    monkeypatch.setattr(classifier, "pixels", decode_slowly)
    answers = classifier.predict_all((b"" for _ in range(10_000)), batch_size=100)
    next(answers)
    answers.close()
    assert len(decoded) < 150


def test_a_probability_that_is_not_a_number_is_an_error(classifier_folder, photos):
    broken = fieldguide.load(classifier_folder, device="cpu")
    with torch.no_grad():
        broken.bundle.net.get_classifier().bias.fill_(torch.nan)
    with pytest.raises(BundleError, match="a probability is not a number"):
        broken.predict(photos[0])
    with pytest.raises(BundleError, match="a probability is not a number"):
        broken.explain(photos[0])
