"""An exported classifier answers as the original, or is not written."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import SETTINGS
from here import fieldguide_here
from torch.nn import functional as F

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import CNNParams
from fieldguide.inference import export as exporting
from fieldguide.inference.export import FromPixels, compare, export, pixels_to_compare
from fieldguide.inference.onnx_classifier import OnnxClassifier
from fieldguide.inference.torch_classifier import TorchClassifier
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle, load_bundle, save_bundle
from fieldguide.network.preprocessing import Preprocessing, to_unit

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["a", 'Kūrmušis "🐭"', "with, comma"]
CNN = SETTINGS | {"filter_org": 1.5, "dropout": 0.5}


def bundle_of(architecture, *, size=16, input_size=16, interpolation="bilinear"):
    torch.manual_seed(0)
    net = build(architecture, input_size=input_size, num_classes=3)
    preprocessing = Preprocessing(input_size, interpolation, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    images = preprocessing(to_unit(torch.from_numpy(pixels_of(8, size))))
    with torch.no_grad():
        net.train()(images)  # moves the means of batch norm
        scores, head = net.eval()(images), net.get_classifier()
        # Random networks hardly tell photos apart; scores of mean 0 and deviation 1 do.
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
    )


def pixels_of(count, size=16):
    """Noise on another colour for each photo: (count, size, size, 3)."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 156, (count, 1, 1, 3), dtype=np.uint8)
    return colours + rng.integers(0, 100, (count, size, size, 3), dtype=np.uint8)


@torch.no_grad()
def expected(bundle, pixels):
    """Probabilities in double precision, each step written out: (B, S, S, 3) -> (B, 3)."""
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255)
    size = bundle.preprocessing.size
    if size != bundle.image_size:
        images = F.interpolate(
            images, (size, size), mode=bundle.preprocessing.interpolation, antialias=True
        )
        images = images.clamp(0, 1)
    mean, std = (np.array(x)[:, None, None] for x in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    images = torch.from_numpy((images.numpy() - mean) / std)
    powers = np.exp(bundle.net.double()(images).numpy())
    bundle.net.float()
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def project(tmp_path, monkeypatch, store):
    """Stands in a folder with a prepared store of 15 photos to test on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prepared").symlink_to(store.folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def process(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "fieldguide.cli", "export", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def commands(tmp_path_factory, store, classifier_folder):
    """A folder in which the same classifier was exported to both formats, and what was said.

    To ONNX by a process of its own.
    """
    folder = tmp_path_factory.mktemp("exported")
    (folder / "data").mkdir()
    (folder / "data/prepared").symlink_to(store.folder)
    model = ["--model", str(classifier_folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "SECONDS", 0.0)
        more = [*model, "-o", "models/exported/x y.pt2"]
        torch_ = fieldguide_here("export", "--format", "torch", *more, cwd=folder)
    return folder, {
        "classifier.onnx": process("--format", "onnx", *model, cwd=folder),
        "x y.pt2": torch_,
    }


@pytest.fixture(scope="module")
def exported(commands):
    """The same classifier in both formats."""
    return commands[0] / "models/exported"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7, 64])
def test_both_formats_take_any_number_of_photos(exported, classifier_folder, count):
    original = TorchClassifier(classifier_folder, "cpu").probabilities(pixels_of(count))
    assert np.ptp(original) > 0.01
    from_onnx = OnnxClassifier(exported / "classifier.onnx").probabilities(pixels_of(count))
    program = torch.export.load(exported / "x y.pt2").module()
    from_torch = program(torch.from_numpy(pixels_of(count))).detach().numpy()
    assert from_onnx == pytest.approx(original, abs=1e-5)
    assert from_torch == pytest.approx(original, abs=1e-5)


@pytest.mark.slow
def test_both_formats_describe_themselves(exported, store, classifier_folder):
    model = onnx.load(exported / "classifier.onnx")
    extra = {"fieldguide.json": ""}
    torch.export.load(exported / "x y.pt2", extra_files=extra)
    (entry,) = model.metadata_props
    assert entry.key == "fieldguide"
    assert json.loads(entry.value) == json.loads(extra["fieldguide.json"])
    assert json.loads(entry.value) == {
        "format": 1,
        "classes": store.classes,
        "image_size": 16,
        "resize": "crop",
        "architecture": "cnn",
        "val_acc": load_bundle(classifier_folder).val_acc,
    }
    assert model.producer_name == "fieldguide"
    assert "(batch, 16, 16, 3) uint8" in model.doc_string
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.slow
def test_neither_format_holds_a_path_of_this_machine(exported):
    for file in exported.iterdir():
        for place in (ROOT, torch.__path__[0], sys.prefix):
            assert str(place).encode() not in file.read_bytes()


@pytest.mark.slow
def test_nothing_is_left_beside_the_file(exported):
    names = sorted(file.name for file in exported.iterdir())
    assert names == ["classifier.onnx", "x y.pt2"]


@pytest.mark.slow
def test_the_same_classifier_gives_the_same_bytes(exported, classifier_folder, tmp_path):
    exporting.write_onnx(load_bundle(classifier_folder), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (exported / "classifier.onnx").read_bytes()


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
    bundle = bundle_of(CNNParams(**CNN | changes), **sizes)
    pixels = pixels_of(5, bundle.image_size)
    wanted = expected(bundle, pixels)
    assert np.ptp(wanted, axis=0).max() > 0.1  # answers differ
    assert exporting.write_onnx(bundle, tmp_path / "x.onnx")(pixels) == pytest.approx(
        wanted, abs=1e-4
    )
    assert OnnxClassifier(tmp_path / "x.onnx").classes == CLASSES
    assert exporting.write_torch(bundle, tmp_path / "x.pt2")(pixels) == pytest.approx(
        wanted, abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit"])
def test_networks_of_timm_are_exact(name, tmp_path):
    bundle = bundle_of(name, size=32, input_size=64, interpolation="bicubic")
    pixels = pixels_of(3, 32)
    wanted = expected(bundle, pixels)
    assert np.ptp(wanted, axis=0).max() > 0.1  # answers differ
    answers = exporting.write_onnx(bundle, tmp_path / "x.onnx")(pixels)
    assert answers == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_written(project, classifier_folder, monkeypatch):
    class OtherWeights(FromPixels):
        def __init__(self, bundle):
            super().__init__(bundle)
            self.net = copy.deepcopy(self.net)  # the original stays as it is
            with torch.no_grad():
                self.net.get_classifier().bias.add_(torch.tensor([0.0, 0.0, 100.0]))

    monkeypatch.setattr(exporting, "FromPixels", OtherWeights)
    out = project / "models/exported/classifier.pt2"
    out.parent.mkdir(parents=True)
    out.write_text("of an earlier run")
    with pytest.raises(
        FieldguideError, match=r"another class for \d+ of 15 photos, largest .* 0\.\d+;"
    ):
        export(classifier_folder, "torch")
    assert [file.name for file in out.parent.iterdir()] == ["classifier.pt2"]
    assert out.read_text() == "of an earlier run"


def test_comparison_is_of_every_photo_and_refuses_nan():
    pixels = pixels_of(3)
    good = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])

    def answer(rows):
        return lambda pixels: np.array(rows)[: len(pixels)]

    def changed(*changes):
        return answer(good + np.array(changes))

    check = compare(answer(good), changed([0, 0], [0, 0], [4e-4, -4e-4]), pixels)
    assert check == (3, pytest.approx(4e-4))
    with pytest.raises(FieldguideError, match=r"class for 0 of 3 photos, largest .* 0\.0011;"):
        compare(answer(good), changed([1.1e-3, 0], [0, 0], [0, 0]), pixels)
    with pytest.raises(FieldguideError, match=r"class for 1 of 3 photos, largest .* 0\.0001;"):
        compare(answer(good), changed([0, 0], [0, 1e-4], [0, 0]), pixels)
    with pytest.raises(FieldguideError, match=r"largest .* nan;"):
        compare(answer(good), changed([0, 0], [np.nan, 0], [0, 0]), pixels)


def test_photos_are_those_of_the_test_split(project, store, classifier_folder, monkeypatch):
    classifier = TorchClassifier(classifier_folder, "cpu")
    test = store.split("test").images(np.arange(15))
    assert np.array_equal(pixels_to_compare(classifier, None), test)
    monkeypatch.setattr(exporting, "PHOTOS", 3)
    assert np.array_equal(pixels_to_compare(classifier, None), test[[0, 7, 14]])


def test_photos_of_a_folder_come_first(project, classifier_folder, make_photos, pack):
    folder = pack(project / "photos", make_photos("deep", each=1) | {"note.txt": b"no photo"})
    classifier = TorchClassifier(classifier_folder, "cpu")
    pixels = pixels_to_compare(classifier, folder)
    files = sorted(folder.rglob("*.png"))
    assert np.array_equal(pixels, np.stack([classifier.pixels(file) for file in files]))


def test_without_photos_nothing_is_exported(tmp_path, monkeypatch, classifier_folder, store):
    monkeypatch.chdir(tmp_path)
    todo = r"run `dvc repro prepare` or give --photos FOLDER"
    with pytest.raises(FieldguideError, match=rf"needs photos to check the result: {todo}"):
        export(classifier_folder, "onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FieldguideError, match="empty: no photo could be read among 0 files"):
        export(classifier_folder, "onnx", photos=Path("empty"))
    with pytest.raises(FieldguideError, match="--photos: found none; allowed: a folder"):
        export(classifier_folder, "onnx", photos=Path("none"))
    (tmp_path / "empty" / "x.jpg").write_bytes(b"x")
    with pytest.raises(FieldguideError, match=r"among 1 files \(empty/x.jpg: unreadable"):
        export(classifier_folder, "onnx", photos=Path("empty"))
    monkeypatch.setattr(exporting, "PREPARED", store.folder)
    save_bundle(bundle_of(CNNParams(**CNN), size=12), tmp_path / "other")
    with pytest.raises(FieldguideError, match=rf"of 12 pixels; .* has 16: {todo}"):
        export(tmp_path / "other", "onnx")
    assert not (tmp_path / "models").exists()


def test_mistakes_are_refused_before_any_work(project, classifier_folder, monkeypatch):
    with pytest.raises(FieldguideError, match=r"x\.pt2: allowed .* a name ending in \.onnx"):
        export(classifier_folder, "onnx", out=Path("x.pt2"))
    with pytest.raises(
        FieldguideError, match="--model: found none; allowed: a classifier's folder"
    ):
        export(Path("none"), "onnx")
    (project / "file").write_text("")
    with pytest.raises(FieldguideError, match=r"file/x\.onnx: cannot be written \("):
        export(classifier_folder, "onnx", out=Path("file/x.onnx"))
    monkeypatch.setattr(exporting, "LARGEST", 1000)
    with pytest.raises(FieldguideError, match=r"GB of weights; .*`--format torch`"):
        export(classifier_folder, "onnx")


def test_without_the_extra_its_name_is_given(project, classifier_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FieldguideError, match=r"needs more packages .*'fieldguide\[onnx\]'"):
        export(classifier_folder, "onnx")


def test_a_network_that_cannot_be_followed_is_a_message(project, classifier_folder, monkeypatch):
    class Branching(FromPixels):
        def forward(self, pixels):
            return super().forward(pixels) if pixels.sum() > 0 else pixels.float()

    monkeypatch.setattr(exporting, "FromPixels", Branching)
    with pytest.raises(FieldguideError, match=r"PyTorch cannot export this network \(\w"):
        export(classifier_folder, "torch")
    assert not list((project / "models/exported").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier.onnx", "x y.pt2"])
def test_command_prints_a_table_and_nothing_else(commands, name):
    folder, done = commands[0], commands[1][name]
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].split() == ["original", "exported"]
    assert [line.split()[0] for line in lines[2:5]] == ["ms", "ms", "size"]
    assert lines[5].startswith("the same class for each of 15 photos; largest difference")
    assert lines[6].startswith(f"models/exported/{name} is written; to use it: ")
    assert len(lines) == 7
    assert (folder / "models/exported" / name).is_file()


@pytest.mark.slow
def test_command_says_what_is_wrong(tmp_path, classifier_folder):
    done = process("--format", "tflite", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for '--format'" in done.stderr
    command = ("export", "--format", "onnx", "--model", classifier_folder)
    done = fieldguide_here(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fieldguide: export needs photos to check the result: run `dvc repro prepare` or give "
        "--photos FOLDER\n"
    )
    assert not list(tmp_path.iterdir())
