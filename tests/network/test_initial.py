"""Initial networks of every kind; anything else is refused."""

import copy
import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from fieldguide.core.errors import TrainingError
from fieldguide.network.backbones import build
from fieldguide.network.bundle import Bundle, save_bundle
from fieldguide.network.initial import FOLDER, backbone_sha256, initial_network
from fieldguide.network.interface import output_layers
from fieldguide.network.preprocessing import Preprocessing

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights of a new project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("models/weights")
    path.mkdir(parents=True)
    return path


@pytest.fixture
def start(store, folder, make_params):
    """Returns the initial network of weights in the folder: start("x.pth", name="test_vit")."""

    def run(weights="none", *, seed=0, of=store, **changes):
        finetune = "full" if weights == "none" else "head"
        changes = {"name": "test_resnet", "weights": weights, "finetune": finetune} | changes
        data = {"image_size": 16}
        model = make_params(data=data, model={"conv_layers": 2} | changes).model
        torch.manual_seed(seed)
        return initial_network(model, of)

    return run


@pytest.fixture
def renamed(store):
    """The store with other classes."""
    other = copy.copy(store)
    other.classes = ["dog", "eel", "fox", "gnu"]
    return other


def net_of(name="test_resnet", classes=5, **options):
    """Return a network of timm whose statistics of batch norm differ from those of a new one."""
    torch.manual_seed(9)
    net = timm.create_model(name, num_classes=classes, **options)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7)
    return net


def backbone_of(net, head):
    return {name: v for name, v in net.state_dict().items() if not name.startswith(f"{head}.")}


def assert_same_backbone(found, expected, head):
    found, expected = backbone_of(found, head), backbone_of(expected, head)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def prefixed(net):
    """Return what many training scripts save: a dictionary, with the prefixes of DataParallel."""
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    return {"epoch": 3, "state_dict": state}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_without_weights_the_network_is_random_and_has_the_preprocessing_of_the_store(
    name, start, store
):
    size = 16 if name == "test_resnet" else 32
    found = start(name=name, input_size="auto" if size == 16 else size, dropout=0.25)
    assert found.origin == "none"
    assert found.preprocessing == Preprocessing(size, "bilinear", store.mean, store.std)
    dropout = found.net.drop_rate if name == "test_resnet" else found.net.head_drop.p
    assert dropout == 0.25
    assert found.net.training
    same, other = start(name=name, input_size=size), start(name=name, input_size=size, seed=1)
    assert backbone_sha256(found.net) == backbone_sha256(same.net)
    assert backbone_sha256(found.net) != backbone_sha256(other.net)
    assert found.net(torch.zeros(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_resnet", "fc"),
        ("test_efficientnet", "classifier"),
        ("test_vit", "head"),
        ("test_convnext", "head.fc"),
    ],
)
@pytest.mark.parametrize("writer", ["safetensors", "torch.save", "torch.save with prefixes"])
def test_a_file_gives_the_backbone_bit_for_bit_and_a_new_head(name, head, writer, start, folder):
    net = net_of(name)
    if writer == "safetensors":
        file = "w.safetensors"
        save_file(net.state_dict(), folder / file)
    else:
        file = "w.pth"
        torch.save(prefixed(net) if "prefixes" in writer else net.state_dict(), folder / file)
    found = start(file, name=name)
    assert_same_backbone(found.net, net, head)
    assert found.net.get_classifier().weight.shape[0] == 3
    assert found.net.training
    assert found.origin == f"{file} (SHA-256 {backbone_sha256(net)[:12]})"


@pytest.mark.parametrize("classes", [0, 3, 1000])
def test_a_file_of_any_number_of_classes_gives_a_new_head(classes, start, folder):
    """Also a file of as many classes as the store has, because they are other classes."""
    net = net_of(classes=classes)
    save_file(net.state_dict(), folder / "w.safetensors")
    zero, again, one = (start("w.safetensors", seed=seed).net for seed in (0, 0, 1))
    assert_same_backbone(zero, net, "fc")
    assert torch.equal(zero.fc.weight, again.fc.weight)
    assert not torch.equal(zero.fc.weight, one.fc.weight)
    if classes == 3:
        assert not torch.equal(zero.fc.weight, net.fc.weight)


@pytest.mark.parametrize(
    ("name", "stored", "size"),
    [
        ("test_resnet", 512, 160),
        ("resnet10t", 44, 176),
        ("resnet10t", 43, 160),  # 172, rounded down to a multiple of 32
        ("resnet10t", 16, 64),  # photos are enlarged four times at most
        ("resnet10t", 8, 32),
        ("test_vit", 16, 160),  # takes one size
    ],
)
def test_preprocessing_is_that_of_the_weights(name, stored, size, start, store):
    save_file(net_of(name).state_dict(), FOLDER / "w.safetensors")
    interpolation = "bilinear" if name == "test_resnet" else "bicubic"
    # As their authors trained them.
    mean, std = IMAGENET if name == "resnet10t" else ([0.5] * 3, [0.5] * 3)
    other = copy.copy(store)
    other.image_size = stored
    found = start("w.safetensors", name=name, of=other)
    assert found.preprocessing == Preprocessing(size, interpolation, mean, std)


def test_photos_are_not_made_smaller_than_a_network_takes(start):
    save_file(net_of("halonet26t").state_dict(), FOLDER / "w.safetensors")
    assert start("w.safetensors", name="halonet26t").preprocessing.size == 256


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_another_input_size_keeps_the_weights(name, start, folder):
    net = net_of(name)
    save_file(net.state_dict(), folder / "w.safetensors")
    found = start("w.safetensors", name=name, input_size=64)
    assert found.preprocessing.size == 64
    assert found.net.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    ours, theirs = found.net.state_dict(), net.state_dict()
    other = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    # ViT has an embedding for the position of each patch, which timm interpolates.
    head = {"fc.weight", "fc.bias"} if name == "test_resnet" else {"head.weight", "head.bias"}
    assert other == head | ({"pos_embed"} if name == "test_vit" else set())


def test_a_size_that_a_network_does_not_take_is_refused(start, folder):
    save_file(net_of("test_vit").state_dict(), folder / "w.safetensors")
    message = r"model\.input_size, .*: test_vit does not take 33 pixels \(.*\); allowed: .* 160"
    for weights in ("none", "w.safetensors"):
        with pytest.raises(TrainingError, match=message):
            start(weights, name="test_vit", input_size=33)


def test_both_of_two_output_layers_are_new(start, store):
    net = start(name="deit_tiny_distilled_patch16_224", input_size=32).net
    assert [layer.out_features for layer in output_layers(net)] == [len(store.classes)] * 2


class Bomb:
    """Stands for a hostile pickle: it makes a file when it is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (self.trace.touch, ())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 9, 1000, -1])
def test_an_incomplete_file_is_refused(kept, suffix, start, folder):
    file = folder / f"w.{suffix}"
    net = net_of()
    if suffix == "pth":
        torch.save(net.state_dict(), file)
    else:
        save_file(net.state_dict(), file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        TrainingError, match=rf"w\.{suffix}: cannot be read as weights \(.+\); allowed: "
    ):
        start(file.name)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors", "w"])
@pytest.mark.parametrize(
    "content",
    [
        b"hello world\n",
        b"oid sha256:0123456789\nsize 1\n",
        b"PK\x03\x04 and no more",
        b"\x80\x02}q\x00.",
        bytes(range(256)),
    ],
    ids=["text", "pointer", "zip", "pickle", "bytes"],
)
def test_a_file_of_something_else_is_refused(content, name, start, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"/{name}: (cannot be read|found) .*; allowed: "):
        start(name)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.zeros(3),
        {},
        {"state_dict": {}},
        {"epoch": 3},
        {"state_dict": {"fc.weight": "text"}},
        {1: torch.zeros(1)},
    ],
    ids=str,
)
def test_a_file_without_weights_is_refused_and_nothing_is_downloaded(content, start, folder):
    torch.save(content, folder / "w.pth")
    with pytest.raises(TrainingError, match=r"w\.pth: (cannot be read|found) .*; allowed: "):
        start("w.pth")


@pytest.mark.parametrize("writer", ["pickle", "torch.save", "beside weights", "old torch.save"])
def test_a_pickle_is_refused_and_never_run(writer, start, folder):
    trace = folder / "pickle was run"
    with (folder / "w.pth").open("wb") as file:
        if writer == "pickle":
            pickle.dump(Bomb(trace), file)
        elif writer == "beside weights":
            torch.save({"state_dict": net_of().state_dict(), "args": Bomb(trace)}, file)
        else:
            torch.save(Bomb(trace), file, _use_new_zipfile_serialization="old" not in writer)
    with pytest.raises(TrainingError, match=r"w\.pth: cannot be read as weights .*; allowed: "):
        start("w.pth")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("test_resnet", "test_vit"),
        ("test_vit", "test_resnet"),
        ("test_convnext", "test_efficientnet"),
        ("test_efficientnet", "test_convnext"),
        ("test_resnet", "resnet10t"),
    ],
)
def test_a_file_of_another_network_is_refused(name, other, start, folder):
    save_file(net_of(other).state_dict(), folder / "w.safetensors")
    with pytest.raises(
        TrainingError,
        match=rf"w\.safetensors: weights do not fit model\.name: {name} \(.+\); all",
    ):
        start("w.safetensors", name=name)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_missing_extra_and_other_weights_are_refused(change, start, folder):
    state = net_of().state_dict()
    if change == "missing":
        del state["layer3.0.bn2.running_mean"]
    elif change == "extra":
        state["layer3.0.bn9.weight"] = torch.zeros(1)
    else:
        state["layer3.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    save_file(state, folder / "w.safetensors")
    with pytest.raises(TrainingError, match=r"weights do not fit .*layer3\.0\."):
        start("w.safetensors")


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pth", "gone", "some/gone.pth"])
def test_a_missing_file_is_named(name, start):
    with pytest.raises(
        TrainingError, match=rf"/{name}: is missing; allowed for model\.weights: none, pretrained"
    ):
        start(name)


def save_classifier(path, store, net, architecture, size=48):
    bundle = Bundle(
        net=net,
        architecture=architecture,
        classes=store.classes,
        image_size=16,
        resize="crop",
        preprocessing=Preprocessing(size, "bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]),
        val_acc=0.5,
        started_from="none",
    )
    save_bundle(bundle, path)


@pytest.fixture
def classifier(folder, store, make_params):
    """Saves an earlier classifier, with the classes of the store, as "old"; returns its network."""

    def make(name):
        changes = {"name": name, "conv_layers": 2}
        architecture = make_params(data={"image_size": 16}, model=changes).model.architecture
        if name == "cnn":
            torch.manual_seed(9)
            net = build(architecture, input_size=48, num_classes=3)
            net(torch.rand(4, 3, 48, 48))  # moves the statistics of batch norm
        else:
            net = net_of(name, classes=3)
        save_classifier(folder / "old", store, net, architecture)
        return net

    return make


@pytest.mark.parametrize(("name", "head"), [("cnn", "classifier.output"), ("test_resnet", "fc")])
def test_an_earlier_classifier_comes_with_its_preprocessing(name, head, start, classifier, renamed):
    net = classifier(name)
    found = start("old", name=name, dropout=0.125, of=renamed)
    assert_same_backbone(found.net, net, head)
    assert found.net.get_classifier().out_features == 4
    assert found.net.training
    assert found.preprocessing == Preprocessing(48, "bicubic", [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert found.origin == f"old (SHA-256 {backbone_sha256(net)[:12]})"
    dropout = found.net.classifier.dropout.p if name == "cnn" else found.net.drop_rate
    assert dropout == 0.125
    assert start("old", name=name, input_size=48).preprocessing == found.preprocessing


@pytest.mark.parametrize("name", ["cnn", "test_resnet"])
def test_an_earlier_classifier_of_the_same_classes_keeps_its_output_layer(name, start, classifier):
    expected = classifier(name).state_dict()
    found = start("old", name=name).net.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("saved", "changes", "message"),
    [
        ("cnn", {"conv_layers": 1}, "conv_layers: found 1, allowed: 2; "),
        (
            "cnn",
            {"activation": "mish", "kernel_size": 5},
            r"kernel_size: found \[5, 5\], .*; model\.activation: found mish, allowed: relu$",
        ),
        ("cnn", {"name": "test_resnet"}, "name: found test_resnet, allowed: cnn$"),
        ("test_resnet", {"name": "cnn"}, "name: found cnn, allowed: test_resnet$"),
        (
            "test_resnet",
            {"name": "test_vit"},
            "name: found test_vit, allowed: test_resnet$",
        ),
    ],
)
def test_an_earlier_classifier_of_another_network_is_refused(
    saved, changes, message, start, classifier
):
    classifier(saved)
    with pytest.raises(TrainingError, match=rf"/old is another network; model\.{message}"):
        start("old", **({"name": saved} | changes))


@pytest.mark.parametrize("name", ["cnn", "test_resnet"])
def test_an_input_size_that_differs_from_the_earlier_classifiers_is_refused(
    name, start, classifier
):
    classifier(name)
    with pytest.raises(TrainingError, match=r"input_size: found 64; .*takes 48 .*allowed: auto"):
        start("old", name=name, input_size=64)


def test_a_folder_without_a_classifier_is_refused(start, folder):
    (folder / "old").mkdir()
    with pytest.raises(TrainingError, match=r"model\.weights: .*/old/model\.json: cannot be read"):
        start("old")


@pytest.mark.parametrize("what", ["missing", "file"])
def test_the_cnn_starts_only_from_classifiers(what, start, folder):
    if what == "file":
        torch.save(net_of().state_dict(), folder / "old")
    with pytest.raises(TrainingError, match=r"/old: not a classifier .*; allowed for .*cnn"):
        start("old", name="cnn")


def test_the_hash_depends_on_everything_but_the_output_layer():
    def change(net, key):
        with torch.no_grad():
            net.state_dict()[key].add_(1)
        return backbone_sha256(net)

    expected = backbone_sha256(net_of())
    net = net_of()
    net.reset_classifier(3)
    assert backbone_sha256(net) == expected
    assert change(net_of(), "fc.weight") == change(net_of(), "fc.bias") == expected
    others = {
        change(net_of(), key)
        for key in ("conv1.0.weight", "bn1.running_var", "bn1.num_batches_tracked")
    }
    assert len(others | {expected}) == 4


def test_weights_that_timm_does_not_have_are_refused(start):
    with pytest.raises(
        TrainingError, match=r"timm has no pretrained weights for test_mambaout; allowed: none, or"
    ):
        start("pretrained", name="test_mambaout")


# Argument: folder of the store. For each line of its input, params as JSON, it
# saves the network in a file and prints its origin, or the error.
SCRIPT = """
import sys
from pathlib import Path
import torch
from fieldguide.core.store import Store
from fieldguide.core.errors import TrainingError
from fieldguide.network.initial import initial_network
from fieldguide.core.params import Params

store = Store(Path(sys.argv[1]))
for line in sys.stdin:
    torch.manual_seed(0)
    try:
        initial = initial_network(Params.model_validate_json(line).model, store)
    except TrainingError as err:
        print(err, flush=True)
    else:
        torch.save(initial.net.state_dict(), "out.pth")
        print(initial.origin, flush=True)
"""


@pytest.fixture
def process(store, folder, tmp_path, make_params):
    """Runs SCRIPT with other environment variables, which libraries read when they are imported."""

    @contextmanager
    def running(**env):
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(store.folder)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "HF_HOME": str(tmp_path / "hub"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_XET": "1",
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as started:

            def start(weights, name="test_resnet"):
                changes = {"name": name, "weights": weights, "finetune": "head"}
                params = make_params(model=changes).model_dump_json()
                started.stdin.write(f"{params}\n")
                started.stdin.flush()
                return started.stdout.readline().strip()

            yield start
            started.stdin.close()
        assert started.returncode == 0

    return running


class Hub(BaseHTTPRequestHandler):
    """Answers like a model hub with a single file; the server has its `path` and `content`."""

    def do_HEAD(self):
        self.answer(with_content=False)

    def do_GET(self):
        self.answer(with_content=True)

    def answer(self, *, with_content):
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path != self.server.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.content
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", hashlib.sha256(content).hexdigest()[:40])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """A model hub on this machine with the weights of test_resnet."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    server.path = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    server.content = save(net_of(classes=1000).state_dict())
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def refused(name):
    """Return the pattern of the error for a failed download, whatever the reason."""
    advice = "put a file into models/weights/ and name it: docs/finetuning.md"
    return re.compile(
        rf"model\.weights: pretrained weights of {name} cannot be .*\(\w+: .+\); .*{advice}"
    )


@pytest.mark.slow
def test_a_download_gives_the_same_network_as_a_file_of_it(process, hub, folder, tmp_path):
    net, path, content = net_of(classes=1000), hub.path, hub.content
    (folder / "w.safetensors").write_bytes(content)
    origin = f"pretrained (SHA-256 {backbone_sha256(net)[:12]})"

    with process(HF_ENDPOINT=hub.address) as start:
        hub.path = "/elsewhere"
        assert refused("test_resnet").fullmatch(start("pretrained"))
        hub.path, hub.content = path, content[:-1]
        assert refused("test_resnet").fullmatch(start("pretrained"))
        hub.content = content
        assert start("pretrained") == origin
    downloaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert f"GET {path}" in hub.asked
    assert downloaded["fc.weight"].shape == (3, net.fc.in_features)
    for name, value in backbone_of(net, "fc").items():
        assert torch.equal(downloaded[name], value), name

    # Without the hub there is only the download in the cache of the library.
    hub.asked.clear()
    with process(HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1") as start:
        assert refused("test_vit").fullmatch(start("pretrained", name="test_vit"))
        assert start("pretrained") == origin
        assert start("w.safetensors") == origin.replace("pretrained", "w.safetensors")
    assert hub.asked == []
    from_file = torch.load(tmp_path / "out.pth", weights_only=True)
    assert all(torch.equal(from_file[name], value) for name, value in downloaded.items())


def test_the_origin_depends_on_a_kept_output_layer(start, classifier, folder, store):
    """Otherwise a training could resume with other weights than it started from."""
    net = classifier("test_resnet")
    first = start("old", name="test_resnet").origin
    with torch.no_grad():
        net.get_classifier().bias.add_(1.0)
    save_classifier(folder / "old", store, net, "test_resnet")
    second = start("old", name="test_resnet").origin
    assert first != second
