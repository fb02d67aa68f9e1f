"""What each strategy of fine-tuning trains; everything else stays bit for bit as it was."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from curves import curves_of
from safetensors.torch import load_file, save_file

from fieldguide.core.errors import TrainingError
from fieldguide.network.backbones import build
from fieldguide.network.blocks import Freezing, block_parameters, count_parameters, freeze
from fieldguide.training import loop
from fieldguide.training.optimizers import make_optimizer

# Blocks by hand, first to last: prefixes of the names of weights and statistics.
BLOCKS = {
    "test_resnet": [("conv1.", "bn1."), *((f"layer{k}.",) for k in (1, 2, 3, 4)), ("fc.",)],
    "test_efficientnet": [
        ("conv_stem.", "bn1."),
        *((f"blocks.{k}.",) for k in (0, 1, 2, 3)),
        ("blocks.4.", "conv_head.", "bn2."),
        ("classifier.",),
    ],
    "test_vit": [
        ("cls_token", "reg_token", "pos_embed", "patch_embed."),
        *((f"blocks.{k}.",) for k in range(5)),
        ("blocks.5.", "norm."),
        ("head.",),
    ],
    "cnn": [
        ("features.conv1.",),
        ("features.conv2.",),
        ("classifier.dense.",),
        ("classifier.output.",),
    ],
}
STRATEGIES = [
    {"finetune": "head"},
    {"finetune": "last_k", "last_k": 1},
    {"finetune": "last_k", "last_k": 2},
    {"finetune": "gradual"},
    {"finetune": "full"},
]
FILE = Path("models/weights/w.safetensors")


def model_of(name="test_resnet", **changes):
    """Return settings of a model that starts from FILE."""
    return {"name": name, "weights": FILE.name, "input_size": 32} | changes


def block_of(key, name):
    (found,) = [k for k, begins in enumerate(BLOCKS[name]) if key.startswith(begins)]
    return found


def differing(before, after):
    assert before.keys() == after.keys()
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


def weights_in(state):
    """Return the keys of parameters: without the whitening and the statistics of batch norm."""
    fixed = ("running_mean", "running_var", "num_batches_tracked", "whitening.conv.weight")
    return {key for key in state if not key.endswith(fixed)}


def copy_of(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


@pytest.fixture
def before():
    """Writes FILE and returns its weights and statistics, unlike those of a new network."""

    def make(name="test_resnet"):
        torch.manual_seed(9)
        options = {"img_size": 32} if name == "test_vit" else {}
        net = timm.create_model(name, num_classes=7, **options)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
                module.num_batches_tracked.fill_(7)
        FILE.parent.mkdir(parents=True, exist_ok=True)
        save_file(net.state_dict(), FILE)
        return copy_of(net)

    return make


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        *(("test_resnet", strategy) for strategy in STRATEGIES),
        *(("test_vit", STRATEGIES[k]) for k in (0, 2, 3)),
        ("test_efficientnet", STRATEGIES[2]),
    ],
    ids=str,
)
def test_frozen_weights_and_statistics_stay_and_the_others_change(
    name, strategy, before, run_training
):
    old = before(name)
    files = run_training(model=model_of(name, **strategy), epochs=2)
    metrics = json.loads(files["metrics/metrics.json"])
    after = load_file(Path("run/classifier/model.safetensors"))
    last = len(BLOCKS[name]) - 1
    first = {"head": last, "last_k": last - strategy.get("last_k", 0), "gradual": 0, "full": 0}
    in_the_end = first[strategy["finetune"]]
    # In the first of two epochs `gradual` trains only the head, and either epoch may be kept.
    only_head = (
        strategy["finetune"] == "gradual"
        and metrics["best"]["val_acc"] == curves_of(files["curves.csv"])["val_acc"][0]
    )
    head = {key for key in old if block_of(key, name) == last}
    assert all(after[key].shape[0] == 3 for key in head)
    rest = [{k: v for k, v in state.items() if k not in head} for state in (old, after)]
    changed = {key for key in weights_in(rest[0]) if block_of(key, name) >= in_the_end}
    assert differing(*rest) == (set() if only_head else changed)

    sizes = {key: after[key].numel() for key in weights_in(after)}
    trained = sum(size for key, size in sizes.items() if block_of(key, name) >= in_the_end)
    assert metrics["parameters"] == {"trained": trained, "all": sum(sizes.values())}


def test_frozen_weights_stay_if_weights_are_averaged(before, run_training):
    old = before()
    run_training(model=model_of(finetune="last_k", last_k=1), epochs=2, ema_decay=0.999)
    after = load_file(Path("run/classifier/model.safetensors"))
    last = len(BLOCKS["test_resnet"]) - 1
    rest = [
        {k: v for k, v in state.items() if block_of(k, "test_resnet") < last}
        for state in (old, after)
    ]
    changed = differing(*rest)
    assert changed == {k for k in weights_in(rest[0]) if block_of(k, "test_resnet") == last - 1}


def norms_of(net):
    norms = torch.nn.BatchNorm2d | torch.nn.LayerNorm
    return [(f"{key}.", one) for key, one in net.named_modules() if isinstance(one, norms)]


@pytest.mark.parametrize(
    "case",
    [
        # Of five blocks the last 0, then 2, then all 5 are trained.
        ("test_resnet", {"finetune": "gradual"}, [5, 3, 0, 0]),
        ("test_vit", {"finetune": "gradual"}, [7, 4, 0, 0]),
        ("test_resnet", {"finetune": "last_k", "last_k": 2}, [3, 3]),
        ("test_resnet", {"finetune": "full"}, [0, 0]),
    ],
    ids=str,
)
def test_each_epoch_changes_only_the_blocks_that_it_trains(case, before, run_training, monkeypatch):
    name, strategy, firsts = case
    changed, training = [], []

    def watched(fit, epoch):
        old, batches = copy_of(fit.net), []
        hook = fit.net.register_forward_pre_hook(
            lambda net, _: batches.append({key for key, one in norms_of(net) if one.training})
        )
        row = train_epoch(fit, epoch)
        hook.remove()
        changed.append(differing(old, fit.net.state_dict()))
        training.append(batches[0])
        return row

    train_epoch = loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", watched)
    keys = before(name).keys()
    run_training(model=model_of(name, **strategy), epochs=len(firsts))
    net = timm.create_model(name, img_size=32) if name == "test_vit" else timm.create_model(name)
    batch_norm = torch.nn.BatchNorm2d  # always in eval mode
    norms = {key for key, one in norms_of(net) if not isinstance(one, batch_norm)}
    assert len(changed) == len(firsts)
    for first, weights, modes in zip(firsts, changed, training, strict=True):
        assert weights == {key for key in weights_in(keys) if block_of(key, name) >= first}
        assert modes == {key for key in norms if block_of(key, name) >= first}


@pytest.mark.parametrize(
    ("name", "epochs", "firsts"),
    [
        ("test_resnet", 1, [5]),
        ("test_resnet", 2, [5, 0]),
        ("test_resnet", 3, [5, 0, 0]),
        ("test_resnet", 10, [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]),
        ("test_resnet", 20, [5, 5, 4, 4, 3, 3, 2, 2, 1, 1] + [0] * 10),
        ("test_vit", 10, [7, 6, 5, 3, 2, 0, 0, 0, 0, 0]),  # 7 × 1/5 = 1.4, 2.8, 4.2, 5.6, 7
        ("cnn", 6, [3, 2, 1, 0, 0, 0]),
    ],
)
def test_gradual_by_hand(name, epochs, firsts, tiny_params):
    model = tiny_params(model=model_of(name, weights="old", finetune="gradual")).model
    freezing = Freezing(
        build(model.architecture, input_size=32, num_classes=3), model, epochs=epochs
    )
    assert [freezing.first_trained(epoch) for epoch in range(epochs)] == firsts


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_by_hand(name, tiny_params):
    net = build(tiny_params(model={"name": name}).model.architecture, input_size=32, num_classes=3)
    names = {id(value): key for key, value in net.named_parameters()}
    found = [{names[id(one)] for one in block} for block in block_parameters(net)]
    expected = [
        {key for key in names.values() if block_of(key, name) == k} for k in range(len(found))
    ]
    assert found == expected
    assert len(found) == len(BLOCKS[name])


def test_a_network_without_blocks_is_refused():
    """CAFormer is one."""
    with pytest.raises(TrainingError, match=r"not divide .* into blocks; allowed: head, full$"):
        block_parameters(torch.nn.Linear(2, 2))


def test_two_output_layers_can_be_trained_but_not_on_features(tiny_params):
    name = "deit_tiny_distilled_patch16_224"
    net = timm.create_model(name, num_classes=3, img_size=32)
    model = tiny_params().model.model_copy(update={"name": name, "finetune": "head"})
    with pytest.raises(TrainingError, match=rf"head needs one output layer, and {name} has 2"):
        freeze(net, model, epochs=1)
    freeze(net, model.model_copy(update={"finetune": "last_k", "last_k": 1}), epochs=1)
    trained = {name for name, one in net.named_parameters() if one.requires_grad}
    heads = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert trained == heads | {
        n for n, _ in net.named_parameters() if n.startswith("blocks.11.")
    } | {*("norm.weight", "norm.bias")}


@pytest.mark.parametrize(("name", "most"), [("test_resnet", 5), ("test_vit", 7), ("cnn", 3)])
def test_last_k_above_the_number_of_blocks_is_refused(name, most, tiny_params):
    def last(k):
        changes = model_of(name, weights="old", finetune="last_k", last_k=k)
        model = tiny_params(model=changes).model
        net = build(model.architecture, input_size=32, num_classes=3)
        freeze(net, model, epochs=3)
        return count_parameters(net)

    counts = last(most)
    assert counts["trained"] == counts["all"]
    with pytest.raises(
        TrainingError,
        match=rf"model\.last_k: found {most + 1}; {name} has {most} blocks; allowed: 1 to {most}$",
    ):
        last(most + 1)


def test_too_many_blocks_are_refused_and_leave_no_outputs(before, run_training):
    before()
    with pytest.raises(TrainingError, match=r"model\.last_k: found 6; test_resnet has 5 blocks"):
        run_training(model=model_of(finetune="last_k", last_k=6))
    assert [file for file in Path("run").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    ("name", "distances"),
    [
        # The number of blocks after each block.
        ("test_resnet", {0: 5, 1: 4, 2: 3, 3: 2, 4: 1, 5: 0}),
        ("test_vit", {0: 7, 1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1, 7: 0}),
        ("cnn", {0: 3, 1: 2, 2: 1, 3: 0}),
    ],
)
def test_learning_rates_decay_from_the_head_down(name, distances, tiny_params):
    model = tiny_params(model={"name": name}).model
    net = build(model.architecture, input_size=32, num_classes=3)
    params = tiny_params(learning_rate=0.5, weight_decay=0.25).train
    optimizer = make_optimizer(net, params, layer_decay=0.5)
    found = {
        id(one): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for one in group["params"]
    }
    assert len(found) == len(list(net.parameters()))
    unscaled = net.no_weight_decay() if name == "test_vit" else set()
    for key, value in net.named_parameters():
        distance = distances[block_of(key, name)]
        decay = 0.25 if value.ndim > 1 and key not in unscaled else 0.0
        assert found[id(value)] == (pytest.approx(0.5 * 0.5**distance), decay), key


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [one for one in STRATEGIES if one.get("last_k") != 1], ids=str)
def test_the_same_training_gives_the_same_bytes_interrupted_or_not(
    strategy, before, run_training, interrupt
):
    before()
    changes = {"model": model_of(input_size=16, **strategy), "epochs": 4}
    expected = run_training("one", **changes)
    shutil.rmtree(".fieldguide/features", ignore_errors=True)
    assert run_training("two", **changes) == expected
    interrupt(3, **changes)
    assert run_training(**changes) == expected


@pytest.mark.slow
def test_an_earlier_cnn_can_be_trained_further(run_training):
    run_training("first", epochs=1)
    shutil.copytree("first/classifier", "models/weights/old")
    before = load_file(Path("models/weights/old/model.safetensors"))
    for finetune, first in (("head", 3), ("last_k", 1), ("full", 0)):
        model = {"weights": "old", "finetune": finetune, "last_k": 2}
        run_training(finetune, model=model, epochs=1)
        after = load_file(Path(f"{finetune}/classifier/model.safetensors"))
        changed = {key for key in weights_in(before) if block_of(key, "cnn") >= first}
        assert differing(before, after) == changed
        description = json.loads(Path(f"{finetune}/classifier/model.json").read_text())
        assert re.fullmatch(r"old \(SHA-256 [0-9a-f]{12}\)", description["started_from"])


@pytest.mark.slow
def test_other_weights_of_the_same_name_are_another_training(before, run_training, interrupt):
    before()
    changes = {"model": model_of(finetune="last_k", input_size=16), "epochs": 2}

    interrupt(2, **changes)
    state = load_file(FILE)
    state["conv1.0.weight"] *= 2
    save_file(state, FILE)
    expected = run_training("uninterrupted", **changes)
    assert run_training(**changes) == expected


@pytest.mark.slow
def test_a_gradual_training_that_stopped_early_counts_the_same_after_an_interruption(
    before, run_training
):
    """It stopped before all blocks were trained, and still counts their parameters as trained."""
    before()
    changes = {
        "model": model_of(finetune="gradual"),
        "learning_rate": 1e-12,
        "schedule": "constant",
        "epochs": 20,
        "patience": 2,
    }
    expected = run_training("uninterrupted", **changes)
    assert len(expected["curves.csv"].splitlines()) == 1 + 3
    Path("not a folder").touch()
    with pytest.raises(FileExistsError, match="not a folder"):
        run_training(bundle=Path("not a folder/classifier"), **changes)
    assert run_training(**changes) == expected
