"""The folder of figures: which figures there are, also for unusual data sets and networks."""

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
from fieldguide.figures.draw import draw_all
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle
from fieldguide.network.preprocessing import Preprocessing
from fieldguide.prepare.prepare import prepare

CURVES = "epoch,train_loss,train_acc,val_loss,val_acc,learning_rate,kept\n1,2,0.25,1.5,0.5,0.01,1\n"
ALWAYS = {"curves", "guided_backprop", "mistakes", "most_alike", "predictions"}


@pytest.fixture
def store_of(make_photos, make_params, pack, tmp_path):
    """Makes a prepared store from the classes of train and those of test."""

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
    """Draws all figures of an untrained network into a folder; returns their paths by name."""

    def run(
        base,
        *,
        of=store,
        right=None,
        model=None,
        timm_name=None,
        folder="figures",
        curves=CURVES,
        sources=None,
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
        (base / "curves.csv").write_text(curves, encoding="utf-8")
        draw_all(
            bundle,
            of,
            predictions=Predictions(
                sources or test.sources, of.classes, test.labels, probabilities
            ),
            curves=base / "curves.csv",
            params=params.visualize,
            folder=base / folder,
        )
        return {file.name: file for file in (base / folder).iterdir()}

    return run


@pytest.fixture
def draw(draw_in, tmp_path):
    return functools.partial(draw_in, tmp_path)


@pytest.fixture(scope="module")
def plain(draw_in, tmp_path_factory):
    """The figures of the unchanged network, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        files = draw_in(tmp_path_factory.mktemp("plain"))
    return files, printed.getvalue()


def expected(layers):
    blocks = [f"conv{k}" for k in range(1, layers + 1)]
    names = (
        ALWAYS
        | {"filters_whitening"}
        | {f"{kind}_{block}" for kind in ("filters", "responses") for block in blocks}
    )
    return {f"{name}.png" for name in names}


def check(files, layers=2):
    """Every file is there, opens as a picture, has a sensible size and is not blank."""
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


def test_bytes_depend_on_the_seed_alone(plain, draw):
    one, two, other = plain[0], draw(folder="two"), draw(folder="other", seed=1)
    assert set(one) == set(two) == set(other)
    assert [one[name].read_bytes() for name in one] == [two[name].read_bytes() for name in one]
    differ = {name for name in one if one[name].read_bytes() != other[name].read_bytes()}
    assert {"predictions.png", "guided_backprop.png"} <= differ
    # Nothing in these is random.
    assert not differ & {"curves.png", "mistakes.png", "filters_conv1.png", "filters_conv2.png"}


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


def test_an_error_leaves_no_folder(draw, tmp_path):
    with pytest.raises(StoreError, match=r"curves\.csv: not a table of curves"):
        draw(curves="", model={"conv_layers": 1}, photos_per_class=1, neurons=1)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


def test_predictions_of_another_test_split_are_refused(draw, store_of):
    with pytest.raises(StoreError, match="its photos are not those of the test split"):
        draw(of=store_of(["ant", "bee"], ["ant", "bee"]), sources=["test/ant/00.png"])


@pytest.mark.parametrize(
    ("name", "explained", "drawn"),
    [
        (
            "test_resnet",
            "guided_backprop",
            ["filters_conv1_0", *(f"responses_{layer}" for layer in ("act1", "layer1", "layer4"))],
        ),
        ("test_efficientnet", "grad_cam", ["filters_conv_stem", "responses_blocks_1"]),
        ("test_vit", "grad_cam", ["filters_patch_embed_proj", "responses_blocks_5"]),
    ],
)
def test_figures_of_timm_networks(name, explained, drawn, draw):
    files = draw(timm_name=name)
    assert {f"{one}.png" for one in [explained, *drawn]} <= set(files)
    assert len({"guided_backprop.png", "grad_cam.png"} & set(files)) == 1
    others = {f for f in files if f.startswith(("filters_", "responses_"))}
    assert len([f for f in others if f.startswith("filters_")]) == 1
    assert set(files) - others == {f"{n}.png" for n in ALWAYS - {"guided_backprop"} | {explained}}
