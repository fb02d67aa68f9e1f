"""A saved classifier loads unchanged; anything else is refused."""

import json
import pickle
from dataclasses import asdict, fields

import pytest
import torch
from bundles import SETTINGS
from safetensors.torch import load_file, save_file

from fieldguide.core.errors import BundleError
from fieldguide.core.params import CNNParams
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle, load_bundle, save_bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing

CLASSES = ["a", "Kūrmušis 🐭", "with, comma"]


def bundle_of(seed=0, **changes):
    settings = SETTINGS | {"filter_org": 1.5, "activation": "mish", "dropout": 0.5}
    params = CNNParams(**(settings | changes))
    torch.manual_seed(seed)
    net = CNN(params, image_size=12, num_classes=3).to(memory_format=torch.channels_last)
    net(images_of(8))  # moves the running mean of batch norm
    return Bundle(
        net=net.eval(),
        architecture=params,
        classes=CLASSES,
        image_size=12,
        resize="squash",
        preprocessing=Preprocessing(12, "bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]),
        val_acc=2 / 3,
        started_from="resnet50.pth (SHA-256 0123456789ab)",
        calibration=Calibration(2.0, 0.95, 0.834),
    )


def images_of(count):
    images = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def saved(tmp_path):
    save_bundle(bundle_of(), tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_norm": False}, {"conv_layers": 1, "activation": "relu"}, {"kernel_size": 1}],
)
@torch.no_grad()
def test_loaded_classifier_gives_identical_scores(changes, tmp_path):
    bundle = bundle_of(**changes)
    save_bundle(bundle, tmp_path / "classifier")
    loaded = load_bundle(tmp_path / "classifier")
    assert torch.equal(loaded.net(images_of(5)), bundle.net(images_of(5)))
    assert not loaded.net.training


@torch.no_grad()
def test_the_whitening_is_saved(tmp_path):
    bundle = bundle_of(whitening=True)
    bundle.net.whitening.fit([images_of(9)])
    save_bundle(bundle, tmp_path / "whitened")
    loaded = load_bundle(tmp_path / "whitened")
    assert torch.equal(loaded.net(images_of(5)), bundle.net(images_of(5)))


def test_all_other_fields_are_kept(saved):
    bundle, loaded = bundle_of(), load_bundle(saved)
    for field in fields(Bundle):
        if field.name != "net":
            assert getattr(loaded, field.name) == getattr(bundle, field.name)


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    save_bundle(bundle_of(), tmp_path / "again")
    save_bundle(load_bundle(saved), tmp_path / "from loaded")
    for name in ("model.safetensors", "model.json"):
        first = (saved / name).read_bytes()
        assert first == (tmp_path / "again" / name).read_bytes()
        assert first == (tmp_path / "from loaded" / name).read_bytes()


def test_saving_replaces_the_folder_and_leaves_no_temporary_file(saved):
    (saved / "old").write_text("of an earlier version")
    save_bundle(bundle_of(seed=1), saved)
    assert sorted(file.name for file in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert [file.name for file in saved.parent.iterdir()] == ["classifier"]
    state = load_bundle(saved).net.state_dict()
    assert torch.equal(state["classifier.output.bias"], bundle_of(1).net.classifier.output.bias)


def test_a_save_that_fails_leaves_the_old_bundle(saved):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    bundle = bundle_of(seed=1)
    broken = Bundle(**(vars(bundle) | {"val_acc": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        save_bundle(broken, saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [file.name for file in saved.parent.iterdir()] == ["classifier"]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(name, saved):
    (saved / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}.*(cannot be read|No such file)"):
        load_bundle(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"nowhere/model\.json: cannot be read \(No such file"):
        load_bundle(tmp_path / "nowhere")


class Bomb:
    """Stands for a hostile pickle: it makes a file when it is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (self.trace.touch, ())


@pytest.mark.parametrize("writer", ["pickle", "torch.save"])
def test_a_pickle_is_refused_and_never_run(writer, saved):
    trace = saved.parent / "pickle was run"
    with (saved / "model.safetensors").open("wb") as file:
        if writer == "pickle":
            pickle.dump(Bomb(trace), file)
        else:
            torch.save(Bomb(trace), file)
    with pytest.raises(BundleError, match=r"model\.safetensors: damaged"):
        load_bundle(saved)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_cut_off_weights_are_refused(kept, saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"model\.safetensors: damaged"):
        load_bundle(saved)


def test_weights_of_another_network_are_refused(saved, tmp_path):
    save_bundle(bundle_of(first_layer_filters=6), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(BundleError, match="of another network"):
        load_bundle(saved)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_missing_or_an_extra_tensor_is_refused(change, saved):
    file = saved / "model.safetensors"
    state = load_file(file)
    if change == "missing":
        del state["classifier.output.bias"]
    else:
        state["classifier.output.other"] = torch.zeros(1)
    save_file(state, file)
    with pytest.raises(BundleError, match="of another network"):
        load_bundle(saved)


def changed(saved, **changes):
    file = saved / "model.json"
    info = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in info.items() if v is not ...}), encoding="utf-8")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"architecture": 3}', b"\xff\xfe"]
)
def test_a_foreign_description_is_refused(content, saved):
    (saved / "model.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.json: not a classifier's description"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "name",
    [
        *("format", "architecture", "classes", "image_size", "resize"),
        *("input_size", "interpolation", "mean", "std", "val_acc", "started_from"),
    ],
)
def test_an_incomplete_description_is_refused(name, saved):
    changed(saved, **{name: ...})
    with pytest.raises(
        BundleError, match=rf"not a classifier's description \('{name}': Field required"
    ):
        load_bundle(saved)


@pytest.mark.parametrize("other", [4, 6, "5", None])
def test_another_format_is_refused(other, saved):
    changed(saved, format=other)
    with pytest.raises(BundleError, match=f"format: found {other!r}; allowed: 5; it is of another"):
        load_bundle(saved)


def test_a_classifier_trained_on_all_photos_has_no_validation_score(tmp_path):
    changes = {"val_acc": None, "calibration": None}
    save_bundle(Bundle(**(vars(bundle_of()) | changes)), tmp_path / "one")
    loaded = load_bundle(tmp_path / "one")
    assert (loaded.val_acc, loaded.calibration) == (None, None)
    scores = torch.tensor([[2.0, 1.0, 0.0]])
    torch.testing.assert_close(loaded.probabilities(scores), scores.softmax(1))


def test_probabilities_by_hand(saved):
    """At temperature 2 the scores 2 ln 3, 2 ln 2 and 0 are the odds 3 : 2 : 1."""
    bundle = load_bundle(saved)
    assert bundle.calibration == Calibration(2.0, 0.95, 0.834)
    scores = 2 * torch.tensor([[3.0, 2.0, 1.0]]).double().log()
    expected = torch.tensor([[1 / 2, 1 / 3, 1 / 6]]).double()
    torch.testing.assert_close(bundle.probabilities(scores), expected)


@pytest.mark.parametrize("min_confidence", [None, 0.0])
def test_no_confidence_and_every_confidence_are_kept(min_confidence, tmp_path):
    found = Calibration(1.25, 0.9, min_confidence)
    save_bundle(Bundle(**(vars(bundle_of()) | {"calibration": found})), tmp_path / "one")
    assert load_bundle(tmp_path / "one").calibration == found


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": 11.0},
        {"temperature": "2"},
        {"target_precision": 1.0},
        {"min_confidence": 1.0},
        {"min_confidence": -0.1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_calibration_out_of_range_is_refused(change, saved):
    found = asdict(Calibration(2.0, 0.95, 0.834))
    changed(saved, calibration=found | change)
    with pytest.raises(BundleError, match=rf"'calibration\.{next(iter(change))}'"):
        load_bundle(saved)


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@torch.no_grad()
def test_a_network_of_timm_is_kept(name, size, tmp_path):
    size = size if name == "test_resnet" else 32
    torch.manual_seed(0)
    net = build(name, input_size=size, num_classes=3, dropout=0.5)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    net(images)  # moves the running mean of batch norm
    preprocessing = Preprocessing(size, "bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    changes = {"net": net.eval(), "architecture": name, "preprocessing": preprocessing}
    bundle = Bundle(**(vars(bundle_of()) | changes))
    save_bundle(bundle, tmp_path / "one")
    loaded = load_bundle(tmp_path / "one")
    torch.testing.assert_close(loaded.net(images), net(images), rtol=0, atol=1e-5)
    state = net.state_dict()
    assert loaded.net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())
    assert not loaded.net.training
    assert (loaded.architecture, loaded.preprocessing) == (name, preprocessing)
    save_bundle(loaded, tmp_path / "two")
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        *("hf-hub:timm/resnet50", "hf_hub:timm/resnet50", "local-dir:/x", "local-dir:resnet50"),
        *("timm/resnet50", "/x/resnet50", "nope", "", "resnet50.nope", "resnet50."),
    ],
)
def test_a_name_that_timm_does_not_list_is_refused_and_nothing_is_downloaded(
    name, saved, monkeypatch
):
    def connect(*_):
        pytest.fail("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", connect)
    changed(saved, architecture={"name": name})
    with pytest.raises(
        BundleError, match=r"'architecture\.timm\.name': .*model\.name: .*; allowed: "
    ):
        load_bundle(saved)


def test_a_network_of_timm_has_no_settings(saved):
    changed(saved, architecture={"name": "test_resnet", "pretrained": True})
    with pytest.raises(BundleError, match=r"'architecture\.timm\.pretrained': Extra inputs"):
        load_bundle(saved)


def test_a_size_that_a_network_of_timm_does_not_take_is_refused(saved):
    name = "test_vit_relpos"
    changed(saved, architecture={"name": name}, input_size=8)
    with pytest.raises(BundleError, match=rf"model\.json: {name} does not take 8 pixels"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "change", [{"activation": "tanh"}, {"kernel_size": 2}, {"unknown": 1}, {"dropout": "0.5"}]
)
def test_an_architecture_out_of_range_is_refused(change, saved):
    info = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    changed(saved, architecture=info["architecture"] | change)
    with pytest.raises(
        BundleError, match=f"(?s)not a classifier's description.*{next(iter(change))}"
    ):
        load_bundle(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "abc"},
        {"mean": "0.5"},
        {"mean": [0.5]},
        {"std": [0.1, 0.2, None]},
        {"resize": "stretch"},
        {"val_acc": "0.5"},
        {"image_size": 13.5},
        {"input_size": 13.5},
        {"input_size": 0},
        {"interpolation": "nearest"},
        {"started_from": 3},
    ],
    ids=str,
)
def test_a_description_of_other_types_is_refused(change, saved):
    changed(saved, **change)
    with pytest.raises(BundleError, match=r"model\.(json|safetensors)"):
        load_bundle(saved)


def test_a_size_that_the_blocks_halve_to_nothing_is_refused(saved):
    architecture = json.loads((saved / "model.json").read_text())["architecture"]
    changed(saved, input_size=8, architecture=architecture | {"conv_layers": 4})
    with pytest.raises(BundleError, match=r"model\.json: .*input_size: found 8; .*: 16 or more"):
        load_bundle(saved)


def test_a_description_of_a_huge_network_takes_no_memory(saved):
    """The description claims 2 × 10^11 weights, which the file does not have."""
    file = saved / "model.json"
    text = json.loads(file.read_text())
    text["architecture"] |= {"first_layer_filters": 1024, "num_neurons_dense": 8192}
    text["architecture"] |= {"conv_layers": 1, "filter_org": 1.0}
    text["input_size"] = 512
    file.write_text(json.dumps(text))
    with pytest.raises(
        BundleError, match=r"model\.safetensors: damaged, or weights of another network"
    ):
        load_bundle(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["cat", "cat", "ship"]},
        {"classes": ["cat", " ", "ship"]},
        {"mean": [1e300, 0.0, 0.0]},
        {"std": [-1.0, 0.5, 0.5]},
    ],
    ids=str,
)
def test_a_description_of_impossible_values_is_refused(change, saved):
    file = saved / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    (key,) = change
    with pytest.raises(BundleError, match=rf"model\.json: not a classifier's description \('{key}"):
        load_bundle(saved)
