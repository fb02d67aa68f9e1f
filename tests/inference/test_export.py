"""An exported classifier gives the same answers as the original, or is not written."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import SETTINGS
from torch.nn import functional as F

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import CNNParams
from fieldguide.inference import export as exporting
from fieldguide.inference.classifier import Classifier
from fieldguide.inference.export import FromPixels, compare, export, pixels_to_compare, write_onnx
from fieldguide.inference.onnx_classifier import OnnxClassifier
from fieldguide.inference.torch_classifier import TorchClassifier
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle, load_bundle, save_bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.preprocessing import Preprocessing, to_unit

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["a", 'Kūrmušis "🐭"', "with, comma"]
CNN = SETTINGS | {"filter_org": 1.5, "dropout": 0.5}
CALIBRATION = Calibration(temperature=0.625, target_precision=0.95, min_confidence=0.834)
OUT = Path("models/exported/classifier.onnx")


def bundle_of(architecture, *, size=16, input_size=16, interpolation="bilinear"):
    torch.manual_seed(0)
    net = build(architecture, input_size=input_size, num_classes=3)
    preprocessing = Preprocessing(input_size, interpolation, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    images = preprocessing(to_unit(torch.from_numpy(pixels_of(8, size))))
    with torch.no_grad():
        net.train()(images)  # updates the means of batch norm
        scores, head = net.eval()(images), net.get_classifier()
        # A random network gives nearly equal scores; these get mean 0 and deviation 1.
        head.weight.div_(scores.std(0)[:, None])
        head.bias.sub_(scores.mean(0)).div_(scores.std(0))
    return Bundle(
        net=net,
        architecture=architecture,
        classes=CLASSES,
        image_size=size,
        resize="crop",
        preprocessing=preprocessing,
        val_acc=0.25,
        started_from="none",
        calibration=CALIBRATION,
    )


def pixels_of(count, size=16):
    """Make photos of noise, each on its own colour: (count, size, size, 3)."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 156, (count, 1, 1, 3), dtype=np.uint8)
    return colours + rng.integers(0, 100, (count, size, size, 3), dtype=np.uint8)


@torch.no_grad()
def expected(bundle, pixels):
    """Compute probabilities step by step in double precision: (B, S, S, 3) -> (B, 3)."""
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255)
    size = bundle.preprocessing.size
    if size != bundle.image_size:
        # As Pillow does: width, then height, and what bicubic overshoots is cut off each time.
        for shape in ((bundle.image_size, size), (size, size)):
            mode = bundle.preprocessing.interpolation
            images = F.interpolate(images, shape, mode=mode, antialias=True).clamp(0, 1)
    mean, std = (np.array(x)[:, None, None] for x in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    images = torch.from_numpy((images.numpy() - mean) / std)
    powers = np.exp(bundle.net.double()(images).numpy() / CALIBRATION.temperature)
    bundle.net.float()
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def project(tmp_path, monkeypatch, store):
    """Enters a folder with a prepared store, whose test split has 15 photos."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prepared").symlink_to(store.folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, store, classifier_folder):
    """The finished command, and the file that it wrote."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "data").mkdir()
    (folder / "data/prepared").symlink_to(store.folder)
    command = [sys.executable, "-m", "fieldguide.cli", "export", "--model", str(classifier_folder)]
    done = subprocess.run(
        [*command, "-o", "models/exported/x y.onnx"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, folder / "models/exported/x y.onnx"


@pytest.mark.slow
def test_the_command_reports_the_comparison_and_nothing_else(exported):
    done, file = exported
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"15 photos compared: each has the same most probable class; the largest difference of a "
        r"probability is \d(e-\d+)?\n"
        r"Use    fieldguide predict --model 'models/exported/x y.onnx' photo.jpg\n",
        done.stdout,
    )
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7, 64])
def test_the_file_takes_any_number_of_photos(exported, classifier_folder, count):
    original = TorchClassifier(classifier_folder, "cpu").probabilities(pixels_of(count))
    assert np.ptp(original) > 0.01
    answers = OnnxClassifier(exported[1]).probabilities(pixels_of(count))
    assert answers == pytest.approx(original, abs=1e-5)


@pytest.mark.slow
def test_the_file_describes_itself(exported, store, classifier_folder):
    model = onnx.load(exported[1])
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    assert entry.key == "fieldguide"
    assert json.loads(entry.value) == {
        "format": 2,
        "classes": store.classes,
        "image_size": 16,
        "resize": "crop",
        "architecture": "cnn",
        "val_acc": load_bundle(classifier_folder).val_acc,
        "calibration": None,
    }
    assert model.producer_name == "fieldguide"
    assert "(batch, 16, 16, 3) uint8" in model.doc_string
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.slow
def test_the_file_holds_no_path_of_this_machine(exported):
    for place in (ROOT, torch.__path__[0], sys.prefix):
        assert str(place).encode() not in exported[1].read_bytes()


@pytest.mark.slow
def test_the_same_classifier_gives_the_same_bytes(exported, classifier_folder, tmp_path):
    write_onnx(load_bundle(classifier_folder), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"activation": "relu", "kernel_size": 1}, {"input_size": 24, "interpolation": "bicubic"}),
        ({"activation": "gelu", "batch_norm": False}, {"size": 40, "interpolation": "bicubic"}),
        ({"activation": "silu", "kernel_size": 5}, {"size": 37, "input_size": 21}),
        ({"activation": "mish", "conv_layers": 1, "kernel_size": 11}, {"input_size": 23}),
    ],
)
def test_every_cnn_is_exact(changes, sizes, tmp_path):
    check_exact(bundle_of(CNNParams(**CNN | changes), **sizes), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit"])
def test_networks_of_timm_are_exact(name, tmp_path):
    check_exact(bundle_of(name, size=32, input_size=64, interpolation="bicubic"), tmp_path)


def check_exact(bundle, folder):
    pixels = pixels_of(4, bundle.image_size)
    wanted = expected(bundle, pixels)
    assert np.ptp(wanted, axis=0).max() > 0.1  # answers differ from photo to photo
    write_onnx(bundle, folder / "x.onnx")
    exported = OnnxClassifier(folder / "x.onnx")
    assert exported.probabilities(pixels) == pytest.approx(wanted, abs=1e-4)
    assert exported.classes == CLASSES


@pytest.mark.slow
def test_a_file_with_other_answers_is_not_written(project, classifier_folder, monkeypatch):
    class OtherWeights(FromPixels):
        def __init__(self, bundle):
            super().__init__(bundle)
            self.net = copy.deepcopy(self.net)  # the original stays as it is
            with torch.no_grad():
                self.net.get_classifier().bias.add_(torch.tensor([0.0, 0.0, 100.0]))

    monkeypatch.setattr(exporting, "FromPixels", OtherWeights)
    OUT.parent.mkdir(parents=True)
    OUT.write_text("of an earlier run")
    with pytest.raises(FieldguideError, match=r"another class for \d+ of 15 photos and .* 0\.\d+;"):
        export(classifier_folder, OUT)
    assert list(OUT.parent.iterdir()) == [OUT]
    assert OUT.read_text() == "of an earlier run"


class Fixed(Classifier):
    """Gives the first rows of a table as its answers."""

    def __init__(self, rows):
        super().__init__(["a", "b"], image_size=16, resize="crop")
        self.rows = np.array(rows)

    def probabilities(self, pixels):
        return self.rows[: len(pixels)]


def test_the_comparison_covers_every_photo_and_refuses_nan():
    good = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])

    def compared(*changes):
        return compare(Fixed(good), Fixed(good + np.array(changes)), pixels_of(3))

    assert compared([0, 0], [0, 0], [4e-4, -4e-4]) == pytest.approx(4e-4)
    with pytest.raises(FieldguideError, match=r"class for 0 of 3 photos and .* 0\.0011;"):
        compared([1.1e-3, 0], [0, 0], [0, 0])
    with pytest.raises(FieldguideError, match=r"class for 1 of 3 photos and .* 0\.0001;"):
        compared([0, 0], [0, 1e-4], [0, 0])
    with pytest.raises(FieldguideError, match=r"difference of a probability of nan;"):
        compared([0, 0], [np.nan, 0], [0, 0])


def test_photos_are_those_of_the_test_split(project, store, classifier_folder, monkeypatch):
    classifier = TorchClassifier(classifier_folder, "cpu")
    test = store.split("test").images(np.arange(15))
    assert np.array_equal(pixels_to_compare(classifier, None), test)
    monkeypatch.setattr(exporting, "MAX_PHOTOS", 3)
    assert np.array_equal(pixels_to_compare(classifier, None), test[[0, 7, 14]])


def test_photos_may_come_from_a_folder(project, classifier_folder, make_photos, pack):
    folder = pack(project / "photos", make_photos("deep", each=1) | {"note.txt": b"no photo"})
    classifier = TorchClassifier(classifier_folder, "cpu")
    expected = np.stack([classifier.pixels(file) for file in sorted(folder.rglob("*.png"))])
    assert np.array_equal(pixels_to_compare(classifier, folder), expected)


def test_without_photos_nothing_is_exported(tmp_path, monkeypatch, classifier_folder, store):
    monkeypatch.chdir(tmp_path)
    todo = "run `dvc repro prepare` or give --photos FOLDER"
    with pytest.raises(FieldguideError, match=f"data/prepared: missing, .* of 16 pixels; {todo}"):
        export(classifier_folder, OUT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FieldguideError, match="--photos empty: found no photo"):
        export(classifier_folder, OUT, photos=Path("empty"))
    with pytest.raises(FieldguideError, match="none: cannot be read"):
        export(classifier_folder, OUT, photos=Path("none"))
    monkeypatch.setattr(exporting, "PREPARED", store.folder)
    save_bundle(bundle_of(CNNParams(**CNN), size=12), tmp_path / "other")
    with pytest.raises(FieldguideError, match=rf"of 16 pixels; allowed: .* 12 pixels; {todo}"):
        export(tmp_path / "other", OUT)
    assert not (tmp_path / "models").exists()


def test_mistakes_are_refused_before_any_work(classifier_folder):
    with pytest.raises(FieldguideError, match=r"found x\.pt2; allowed: a name ending in \.onnx"):
        export(classifier_folder, Path("x.pt2"))
    with pytest.raises(FieldguideError, match="found none; allowed: a classifier's folder"):
        export(Path("none"), OUT)


def test_without_the_extra_the_message_names_it(project, classifier_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FieldguideError, match=r"needs more packages .*'fieldguide\[onnx\]'"):
        export(classifier_folder, OUT)


def test_a_network_that_pytorch_cannot_export_is_an_error(project, classifier_folder, monkeypatch):
    class Branching(FromPixels):
        def forward(self, pixels):
            return super().forward(pixels) if pixels.sum() > 0 else pixels.float()

    monkeypatch.setattr(exporting, "FromPixels", Branching)
    with pytest.raises(FieldguideError, match=r"PyTorch cannot export this network \(\w"):
        export(classifier_folder, OUT)
    assert not list((project / "models/exported").iterdir())
