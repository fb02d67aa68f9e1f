"""The folder of figures: which there are, and that odd data sets and networks are drawn too."""

import contextlib
import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.core.errors import StoreError
from fieldguide.core.store import Store
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures import layers
from fieldguide.figures.charts import training_curves
from fieldguide.figures.draw import Inputs, draw_all
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle
from fieldguide.network.preprocessing import Preprocessing
from fieldguide.prepare.prepare import prepare

CURVES = ["train/loss", "train/acc", "val/loss", "val/acc", "learning_rate"]
ALWAYS = {"confusion", "curves", "guided_backprop", "mistakes", "predictions", "reliability"}


@pytest.fixture
def store_of(make_photos, make_params, pack, tmp_path):
    """Makes a prepared store with the classes that train and test have."""

    def make(train, test):
        files = make_photos("train", classes=train, each=4, seed=0)
        files |= make_photos("test", classes=test, each=3, seed=1)
        archive = pack(tmp_path / "photos.zip", files)
        changes = {"archive": str(archive), "image_size": 16}
        prepare(make_params(data=changes, model={"conv_layers": 2}).data, tmp_path / "prepared")
        return Store(tmp_path / "prepared")

    return make


@pytest.fixture(scope="module")
def draw_in(make_params, store):
    """Draws all figures of an untrained network below a folder and returns {name: file}."""

    def run(
        base,
        *,
        of=store,
        right=None,
        model=None,
        timm_name=None,
        folder="figures",
        missing=None,
        **visualize,
    ):
        settings = {"conv_layers": 2, "first_layer_filters": 4, "num_neurons_dense": 8}
        params = make_params(
            data={"image_size": 16},
            model=settings | (model or {}),
            visualize={"photos_per_class": 2, "neurons": 3} | visualize,
        )
        size, test = len(of.classes), of.split("test")
        torch.manual_seed(0)
        architecture, pixels = params.model.architecture, 16
        if timm_name:
            architecture, pixels = timm_name, 160
        bundle = Bundle(
            net=build(architecture, input_size=pixels, num_classes=size).eval(),
            architecture=architecture,
            classes=of.classes,
            image_size=16,
            resize="crop",
            preprocessing=Preprocessing(pixels, "bilinear", of.mean, of.std),
            val_acc=0.5,
            started_from="none",
        )
        guesses = (test.labels + (np.arange(len(test)) % 3 == 0)) % size
        if right is not None:
            guesses = test.labels if right else (test.labels + 1) % size
        probabilities = np.full((len(test), size), 0.2 / size)
        probabilities[np.arange(len(test)), guesses] += 0.8
        curves = base / "curves"
        for name in [name for name in CURVES if name != missing]:
            file = curves / f"{name}.tsv"
            file.parent.mkdir(parents=True, exist_ok=True)
            column = name.split("/")[-1]
            file.write_text(f"step\t{column}\n0\t0.25\n1\t0.5\n2\t0.375\n", encoding="utf-8")
        reliability = base / "reliability.csv"
        reliability.write_text("confidence,accuracy\n0.4,0.5\n0.8,0.7\n", encoding="utf-8")
        inputs = Inputs(
            bundle=bundle,
            test=test,
            predictions=Predictions(test.sources, of.classes, test.labels, probabilities),
            curves=curves,
            reliability=reliability,
        )
        draw_all(inputs, params.visualize, base / folder)
        return {file.name: file for file in (base / folder).iterdir()}

    return run


@pytest.fixture
def draw(draw_in, tmp_path):
    return functools.partial(draw_in, tmp_path)


@pytest.fixture(scope="module")
def plain(draw_in, tmp_path_factory):
    """{name: file} of a network without changes, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        files = draw_in(tmp_path_factory.mktemp("plain"))
    return files, printed.getvalue()


def expected(layers):
    blocks = [f"conv{k}" for k in range(1, layers + 1)]
    names = ALWAYS | {f"{kind}_{block}" for kind in ("filters", "responses") for block in blocks}
    return {f"{name}.png" for name in names}


def check(files, layers=2):
    """Every file is there, opens as a picture, has a sensible size and is not empty paper."""
    assert set(files) == expected(layers)
    for name, file in files.items():
        with Image.open(file) as picture:
            assert picture.format == "PNG", name
            assert 300 <= picture.width <= 3000, name
            assert 150 <= picture.height <= 6000, name
            picture.load()
            assert len(picture.convert("L").getcolors()) > 1, name


def test_every_figure_is_drawn_and_named(plain):
    files, printed = plain
    check(files)
    assert all(str(file) in printed for file in files.values())


def test_curves_of_a_training_without_validation_are_drawn(tmp_path):
    for name in ("train/loss", "train/acc", "learning_rate"):
        file = tmp_path / f"{name}.tsv"
        file.parent.mkdir(exist_ok=True)
        text = f"step\t{name.split('/')[-1]}\n0\t0.25\n1\t0.5\n"
        file.write_text(text, encoding="utf-8")
    loss, accuracy, _ = training_curves(tmp_path).axes
    assert [line.get_label() for line in loss.lines] == ["train"]
    assert accuracy.get_title() == "Accuracy; trained on val too, kept: the last epoch"


def test_bytes_depend_on_the_seed_alone(plain, draw):
    one, two, other = plain[0], draw(folder="two"), draw(folder="other", seed=1)
    assert set(one) == set(two) == set(other)
    assert [one[name].read_bytes() for name in one] == [two[name].read_bytes() for name in one]
    differ = {name for name in one if one[name].read_bytes() != other[name].read_bytes()}
    assert {"predictions.png", "guided_backprop.png"} <= differ
    # These are not drawn by lot.
    assert not differ & {
        *("confusion.png", "curves.png", "reliability.png", "mistakes.png"),
        *("filters_conv1.png", "filters_conv2.png"),
    }


def test_figures_of_an_earlier_network_are_replaced(draw, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "filters_conv2.png").touch()
    # More filters than are shown, of one pixel.
    check(draw(model={"conv_layers": 1, "first_layer_filters": 65, "kernel_size": 1}), layers=1)
    assert not list(tmp_path.glob(".*partial"))


def test_four_layers_of_mish_are_drawn(draw):
    model = {"conv_layers": 4, "first_layer_filters": 2, "activation": "mish", "batch_norm": False}
    check(draw(model=model), layers=4)


@pytest.mark.parametrize(
    ("train", "test", "settings"),
    [
        (
            ["cost $_$ \\x", "50% of $x^$"],
            ["cost $_$ \\x", "50% of $x^$"],
            {"right": False, "photos_per_class": 10, "neurons": 12},
        ),
        ([f"class {k}" for k in range(12)], [f"class {k}" for k in range(12)], {}),
        (
            ["_hidden", "a very long class name, indeed", "Ćma"],
            ["_hidden", "Ćma"],
            {"right": True, "photos_per_class": 1, "neurons": 1},
        ),
    ],
    ids=["two, with dollars, all wrong", "twelve", "one absent in test, all right"],
)
def test_other_classes_are_drawn(train, test, settings, draw, store_of):
    check(draw(of=store_of(train, test), **settings))


def test_a_missing_curve_is_told_and_no_folder_is_left(draw, tmp_path):
    with pytest.raises(StoreError, match=r"acc\.tsv: not a curve of DVCLive"):
        draw(missing="val/acc", model={"conv_layers": 1}, photos_per_class=1, neurons=1)
    assert not (tmp_path / "figures").exists()
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    ("name", "explained", "drawn"),
    [
        (
            "test_resnet",
            "guided_backprop",
            ["filters_conv1_0", *(f"responses_{part}" for part in ("act1", "layer1", "layer4"))],
        ),
        ("test_efficientnet", "grad_cam", ["filters_conv_stem", "responses_blocks_1"]),
        ("test_vit", "grad_cam", ["filters_patch_embed_proj", "responses_blocks_5"]),
    ],
)
def test_figures_of_timm_networks(name, explained, drawn, draw, monkeypatch):
    monkeypatch.setattr(layers, "SHOWN", 8)  # most of the time goes into the 64 of each layer
    files = draw(timm_name=name)
    assert {f"{one}.png" for one in [explained, *drawn]} <= set(files)
    assert len({"guided_backprop.png", "grad_cam.png"} & set(files)) == 1
    others = {f for f in files if f.startswith(("filters_", "responses_"))}
    assert len([f for f in others if f.startswith("filters_")]) == 1
    assert set(files) - others == {f"{n}.png" for n in ALWAYS - {"guided_backprop"} | {explained}}
