"""ONNX files made by hand: one like ours gives known answers, all others are refused."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import fieldguide
from fieldguide.core.errors import BundleError
from fieldguide.inference.onnx_classifier import OnnxClassifier

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["red", 'Kūrmušis "🐭"', "with, comma"]
GOOD = {"format": 2, "classes": CLASSES, "image_size": 4, "resize": "squash"}
GOOD["calibration"] = {"temperature": 1.5, "target_precision": 0.95, "min_confidence": 0.834}


def onnx_file(path, metadata, *, nodes=(), weights=()):
    """Write a graph that gives the mean of each channel: (B, 4, 4, 3) -> (B, 3)."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    axes = numpy_helper.from_array(np.array([1, 2]), "axes")
    last = "means" if nodes else "probabilities"
    all_nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], [last], keepdims=0),
        *nodes,
    ]
    graph = helper.make_graph(all_nodes, "graph", [pixels], [answer], [axes, *weights])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("stranger", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if metadata is not None:
        helper.set_model_props(model, {"fieldguide": metadata})
    path.write_bytes(model.SerializeToString())
    return path


def photos(count):
    return np.random.default_rng(count).integers(1, 256, (count, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def good(tmp_path):
    return onnx_file(tmp_path / "good.onnx", json.dumps(GOOD))


@pytest.mark.parametrize("count", [1, 7, 64])
def test_each_row_sums_to_1_for_any_number_of_photos(good, count):
    rows = OnnxClassifier(good).probabilities(photos(count))
    means = photos(count).mean(axis=(1, 2), dtype=np.float64)
    assert rows.dtype == np.float64
    assert rows == pytest.approx(means / means.sum(axis=1, keepdims=True), abs=1e-6)
    assert rows.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-15)


def test_a_photo_is_classified_by_the_names_in_the_metadata(good, tmp_path):
    Image.new("RGB", (9, 5), (60, 30, 10)).save(tmp_path / "photo.png")
    classifier = fieldguide.load(good)
    assert isinstance(classifier, OnnxClassifier)
    assert (classifier.image_size, classifier.resize) == (4, "squash")
    assert classifier.min_confidence == 0.834
    answer = classifier.predict(tmp_path / "photo.png")
    assert list(answer.probabilities) == CLASSES
    assert list(answer.probabilities.values()) == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize("calibration", [None, {"min_confidence": None}])
def test_a_classifier_may_have_no_smallest_confidence(calibration, tmp_path):
    path = onnx_file(tmp_path / "x.onnx", json.dumps(GOOD | {"calibration": calibration}))
    classifier = OnnxClassifier(path)
    assert classifier.min_confidence is None
    assert classifier.calibrated == (calibration is not None)


def test_several_threads_may_share_a_classifier(good):
    classifier = OnnxClassifier(good)
    sequential = [classifier.probabilities(photos(count)) for count in range(1, 33)]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(classifier.probabilities, map(photos, range(1, 33))))
    assert all(np.array_equal(a, b) for a, b in zip(sequential, parallel, strict=True))


@pytest.mark.parametrize("kept", [0, 40, -20])
def test_a_damaged_file_is_refused(good, kept):
    good.write_bytes(good.read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"good\.onnx: not an ONNX file, or damaged \(\w"):
        OnnxClassifier(good)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"none\.onnx: cannot be read \(No such file"):
        OnnxClassifier(tmp_path / "none.onnx")


def test_a_model_of_someone_else_is_refused(tmp_path):
    path = onnx_file(tmp_path / "foreign.onnx", None)
    with pytest.raises(BundleError, match=r"foreign\.onnx: not a classifier of fieldguide"):
        OnnxClassifier(path)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "found list; allowed: a mapping"),
        ({}, "'format': missing; allowed: 2"),
        (GOOD | {"format": 1}, "'format': found 1; allowed: 2"),
        (GOOD | {"classes": "red"}, "'classes': found 'red'; allowed: two or more names"),
        (GOOD | {"classes": ["red", 2, "blue"]}, "'classes': found .* 2, .*; allowed: two or more"),
        (GOOD | {"classes": ["red", "red", "blue"]}, "'classes': found .*; allowed: .* only once"),
        (GOOD | {"classes": ["red"]}, "'classes': found .*; allowed: two or more names"),
        (GOOD | {"classes": ["red", "\ud800", "blue"]}, "is not JSON .*surrogates not allowed"),
        (GOOD | {"image_size": True}, "'image_size': found True; allowed: 1 to 512"),
        (GOOD | {"image_size": 100_000}, "'image_size': found 100000; allowed: 1 to 512"),
        (GOOD | {"resize": "pad"}, "'resize': found 'pad'; allowed: crop or squash"),
        ({k: v for k, v in GOOD.items() if k != "calibration"}, "'calibration': missing; allowed"),
        (GOOD | {"calibration": 1.5}, "'calibration': found 1.5; allowed: null, or"),
        (GOOD | {"calibration": {}}, "'calibration': found {}; allowed: null, or"),
        (GOOD | {"calibration": {"min_confidence": "0.5"}}, "'calibration': found .* number from"),
        (GOOD | {"calibration": {"min_confidence": 1}}, "'calibration': found .* to below 1"),
        (GOOD | {"calibration": {"min_confidence": True}}, "'calibration': found .*True"),
        (GOOD | {"image_size": 5}, r"found .*\[4, 4, 3\].* in the graph; allowed: .*\[5, 5, 3\]"),
        (GOOD | {"classes": ["red", "blue"]}, r"found .*\[3\].* in the graph; allowed: .*\[2\]"),
    ],
)
def test_broken_metadata_is_refused(metadata, problem, tmp_path):
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    path = onnx_file(tmp_path / "broken.onnx", text)
    with pytest.raises(BundleError, match=rf"broken\.onnx: metadata 'fieldguide'.*{problem}"):
        OnnxClassifier(path)


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "{folder}/weights.bin"])
def test_weights_in_another_file_are_never_read(place, tmp_path, monkeypatch):
    folder = tmp_path / "inner"
    folder.mkdir()
    for there in (folder, tmp_path):
        np.ones(3, dtype=np.float32).tofile(there / "weights.bin")
    monkeypatch.chdir(folder)
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place.format(folder=folder))
    add = helper.make_node("Add", ["means", "w"], ["probabilities"])
    path = onnx_file(folder / "outside.onnx", json.dumps(GOOD), nodes=[add], weights=[weights])
    with pytest.raises(BundleError, match=r"outside\.onnx: not an ONNX file, or damaged .*xternal"):
        OnnxClassifier(path)


def test_an_unknown_operator_is_refused(tmp_path):
    node = helper.make_node("Run", ["means"], ["probabilities"], domain="stranger")
    path = onnx_file(tmp_path / "custom.onnx", json.dumps(GOOD), nodes=[node])
    with pytest.raises(BundleError, match=r"stranger:Run.* is not a registered function"):
        OnnxClassifier(path)


def test_the_file_of_a_graph_that_fails_is_named(tmp_path, capfd):
    shape = numpy_helper.from_array(np.array([2, 3]), "shape")
    node = helper.make_node("Reshape", ["means", "shape"], ["probabilities"])
    path = onnx_file(tmp_path / "two.onnx", json.dumps(GOOD), nodes=[node], weights=[shape])
    classifier = OnnxClassifier(path)
    assert classifier.probabilities(photos(2)).shape == (2, 3)
    with pytest.raises(BundleError, match=r"two\.onnx: cannot be run \(.*Reshape"):
        classifier.probabilities(photos(3))
    assert capfd.readouterr().err == ""  # the error is raised, not printed


def test_without_onnx_runtime_the_message_names_the_extra(good, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"good\.onnx: needs ONNX Runtime .*fieldguide\[onnx\]"):
        OnnxClassifier(good)


def test_it_cannot_explain_its_answers(good):
    classifier = OnnxClassifier(good)
    assert not classifier.can_explain
    with pytest.raises(BundleError, match=r"has no gradients .* allowed: a classifier's folder"):
        classifier.explain(b"photo")


def test_nothing_heavy_is_imported(good, tmp_path):
    Image.new("RGB", (9, 5), (60, 30, 10)).save(tmp_path / "photo.jpg")
    code = (
        "import sys, fieldguide; print(fieldguide.load('good.onnx').predict('photo.jpg').label, "
        "[m for m in ('torch', 'timm', 'pydantic', 'onnx', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("red []\n", "")
