import json
from pathlib import Path

import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import load_params
from fieldguide.sweeps.space import choices_of, with_values
from fieldguide.sweeps.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[2]
BASE = load_params(ROOT / "params.yaml")  # 24 epochs, 32 pixels
GOOD = """\
method: bayes
metric:
  name: val_acc
  goal: maximize
run_cap: 40
early_terminate: {type: hyperband, min_iter: 3, eta: 3}
parameters:
  activation:
    values: [relu, gelu]
  learning_rate:
    distribution: log_uniform_values
    min: 1e-4
    max: 1e-2
  dropout: {min: 0.0, max: 0.5}
  batch_size: {distribution: q_uniform, min: 32, max: 100, q: 32}
  model.first_layer_filters: {min: 16, max: 64}
  epochs:
    value: 12
"""


def load(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return load_sweep(path, BASE)


def test_wandb_file_is_read_as_wandb_means_it(tmp_path):
    sweep = load(tmp_path, GOOD)
    assert (sweep.name, sweep.method, sweep.metric, sweep.goal) == (
        "sweep",
        "bayes",
        "val/acc",
        "maximize",
    )
    assert sweep.space == {
        "model.activation": CategoricalDistribution(["relu", "gelu"]),
        "train.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "train.batch_size": IntDistribution(32, 96, step=32),
        "model.first_layer_filters": IntDistribution(16, 64),
    }
    assert sweep.fixed == {"train.epochs": 12}
    assert sweep.configurations == 40
    assert (sweep.seeds, sweep.seed) == (1, 0)


def test_the_original_space_has_its_ten_parameters():
    sweep = load_sweep(ROOT / "sweeps/original.yaml", BASE)
    assert sorted(key.split(".")[1] for key in sweep.space) == [
        "activation",
        "batch_norm",
        "batch_size",
        "conv_layers",
        "dropout",
        "filter_org",
        "first_layer_filters",
        "learning_rate",
        "num_neurons_dense",
        "use_augmentation",
    ]
    best = {
        "model.first_layer_filters": 128,
        "model.conv_layers": 5,
        "model.filter_org": 1,
        "model.activation": "gelu",
        "model.batch_norm": True,
        "model.num_neurons_dense": 512,
        "model.dropout": 0.3,
        "train.batch_size": 64,
        "train.use_augmentation": False,
    }
    for key, value in best.items():
        assert value in choices_of(sweep.space[key])
    with_values(BASE, best)


def test_keys_that_only_wandb_needs_are_taken(tmp_path):
    load(tmp_path, GOOD + "program: train.py\nproject: x\nentity: y\ncommand: [python, -c]\n")


def test_names_of_the_metric(tmp_path):
    for name in ("val/acc", "val.acc", "val_acc", "val_accuracy"):
        assert load(tmp_path, GOOD.replace("val_acc", name)).metric == "val/acc"
    text = GOOD.replace("val_acc", "val_loss").replace("goal: maximize", "goal: minimize")
    assert load(tmp_path, text).goal == "minimize"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: bayes", "method: baies", "line 1: method: found 'baies'; allowed: 'grid'"),
        ("name: val_acc", "name: test/acc", "line 3: metric.name: found 'test/acc'"),
        ("goal: maximize", "goal: minimize", "line 4: metric.goal: minimize val/acc; allowed: max"),
        ("run_cap: 40", "runcap: 40", "line 5: runcap: unknown key; did you mean run_cap?"),
        ("run_cap: 40", "run_cap: 0", "line 5: run_cap: found 0; allowed: greater than or equal"),
        ("run_cap: 40\n", "", "line 1: run_cap: missing; bayes needs the number of config"),
        ("min_iter: 3", "min_itr: 3", "line 6: early_terminate.min_itr: unknown key; did you mean"),
        ("min_iter: 3", "min_iter: 12", "line 6: early_terminate: no rung lies before the last"),
        ("min_iter: 3, ", "", "line 6: early_terminate: needs min_iter or max_iter, one of the"),
        ("min_iter: 3", "max_iter: 9", "line 6: early_terminate: max_iter needs s"),
        ("activation:", "activaton:", "line 8: activaton: is in no section of params.yaml; did"),
        (
            "  activation:",
            "  seed:",
            "line 8: seed: is ambiguous; allowed: data.seed or train.seed",
        ),
        ("  activation:", "  visualize.neurons:", "line 8: visualize.neurons: trials end with"),
        ("  activation:", "  batch_size:", "is not valid YAML: found duplicate key"),
        (
            "  epochs:\n",
            "  model.dropout: {value: 0}\n  epochs:\n",
            "dropout: is model.dropout",
        ),
        ("[relu, gelu]", "[relu, tanh]", "line 9: model.activation: found 'tanh'; allowed: 'relu'"),
        ("[relu, gelu]", "[relu, relu]", "line 9: activation: a value is there twice"),
        ("[relu, gelu]", "[]", "line 9: parameters.activation.values: found"),
        ("values: [relu, gelu]", "min: 1\n    max: 2", "model.activation: is not a number"),
        ("max: 1e-2", "max: 20", "line 13: train.learning_rate: found 20; allowed: less than"),
        ("min: 1e-4", "min: 0", "line 12: train.learning_rate: min 0 of log_uniform_values"),
        ("min: 1e-4", "min: 1", "line 12: train.learning_rate: min 1, max 0.01; allowed: min < m"),
        ("min: 1e-4", "q: 1", "line 12: learning_rate.q: does not go with log_uniform_values"),
        ("    min: 1e-4\n", "", "learning_rate.min: is missing for log_uniform_values"),
        ("min: 16, max", "min: 16.5, max", "line 16: model.first_layer_filters: uniform draws fra"),
        ("q: 32", "q: 0", "line 15: train.batch_size: q 0; allowed: above 0"),
        ("q: 32", "q: 100", "line 15: train.batch_size: q 100; allowed: above 0 and at most max"),
        ("max: 1e-2", "max: .inf", "line 12: train.learning_rate: min 0.0001, max inf; allowed:"),
        ("max: 1e-2", f"max: 1{'0' * 400}", "line 12: train.learning_rate: min 0.0001, max 1"),
        ("q: 32", "q: 0.5", "line 15: train.batch_size: q_uniform of fractions; allowed: whole"),
        ("value: 12", "value: 12\n    values: [1]", "line 18: epochs.value: does not go with cat"),
        ("value: 12", "value: 0", "line 18: train.epochs: found 0; allowed: greater"),
        (
            "epochs:\n    value: 12",
            "kernel_size:\n    values: [3, 4]",
            "line 18: model.kernel_size: found 4",
        ),
        (
            "epochs:\n    value: 12",
            "conv_layers:\n    value: 6",
            "line 18: model.conv_layers: 6 bl",
        ),
        ("epochs:\n    value: 12", "image_size: {min: 4, max: 8}", "line 17: data.image_size: fou"),
        (GOOD, "- 1", "is not a sweep file: a mapping with method, metric and parameters"),
        (GOOD, "method: [", "is not valid YAML"),
        (GOOD, GOOD + "seeds: 3\n  train.seed: {values: [1, 2]}", "is not valid YAML"),
        (
            "epochs:\n    value: 12\n",
            "train.seed: {values: [1, 2]}\nseeds: 2",
            "line 18: seeds: sets",
        ),
        (
            "epochs:\n    value: 12\n",
            "train_on_val:\n    values: [true, false]\n",
            "train.train_on_val: true leaves nothing to compare trials by; allowed in a sweep",
        ),
        (GOOD, GOOD + "name: a/b", "line 19: name: 'a/b'; allowed: up to 40 letters"),
        (GOOD, GOOD + "name: cnn-2024_v2", "line 19: name: 'cnn-2024_v2'; allowed: up to 40"),
    ],
)
def test_mistakes_are_refused_with_their_line(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ParamsError) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"none\.yaml: cannot be read"):
        load_sweep(tmp_path / "none.yaml", BASE)


def test_grid_over_a_range_is_refused_and_over_steps_is_not(tmp_path):
    text = GOOD.replace("bayes", "grid").replace("early_terminate: {type: h", "x: {type: h")
    with pytest.raises(ParamsError, match="learning_rate: log_uniform_values is continuous"):
        load(tmp_path, GOOD.replace("bayes", "grid"))
    grid = {
        "method": "grid",
        "metric": {"name": "val/acc"},
        "parameters": {
            "activation": {"values": ["relu", "gelu"]},
            "conv_layers": {"min": 3, "max": 5},
            "dropout": {"distribution": "q_uniform", "min": 0, "max": 0.5, "q": 0.25},
        },
    }
    sweep = load(tmp_path, json.dumps(grid))
    assert text
    assert sweep.configurations == 18
    first, *_, last = list(sweep.grid())
    assert first == {"model.activation": "relu", "model.conv_layers": 3, "model.dropout": 0.0}
    assert last == {"model.activation": "gelu", "model.conv_layers": 5, "model.dropout": 0.5}
    assert len({json.dumps(values) for values in sweep.grid()}) == 18
    capped = load(tmp_path, json.dumps({**grid, "run_cap": 5}))
    assert capped.configurations == 5


def test_a_range_of_billions_is_counted_and_not_listed(tmp_path):
    parameters = {"train.seed": {"min": 0, "max": 2**32 - 1}}
    space = {"metric": {"name": "val/acc"}, "parameters": parameters, "run_cap": 3}
    with pytest.raises(ParamsError, match="a grid of 4,294,967,296; allowed: at most 100,000"):
        load(tmp_path, json.dumps({"method": "grid", **space}))
    assert load(tmp_path, json.dumps({"method": "random", **space})).configurations == 3


def test_a_value_that_fits_only_with_another_ones_value_is_allowed(tmp_path):
    # Six blocks need 64 pixels, which the same sweep tries too.
    text = GOOD.replace("epochs:\n    value: 12", "conv_layers: {values: [5, 6]}")
    sweep = load(tmp_path, text + "  image_size: {values: [32, 64]}\n")
    assert choices_of(sweep.space["model.conv_layers"]) == [5, 6]


@pytest.mark.parametrize(
    ("early", "rungs"),
    [
        ({"min_iter": 3, "eta": 3}, [3, 9]),  # 27 is beyond the last epoch, 24
        ({"min_iter": 1, "eta": 2}, [1, 2, 4, 8, 16]),
        ({"min_iter": 1, "eta": 2, "s": 2}, [1, 2]),
        ({"max_iter": 27, "s": 2}, [3, 9]),  # W&B's own example: 27/3 and 27/9
        ({"max_iter": 24, "eta": 2, "s": 3}, [3, 6, 12]),
    ],
)
def test_rungs(tmp_path, early, rungs):
    text = GOOD.replace("  epochs:\n    value: 12\n", "").replace(
        "{type: hyperband, min_iter: 3, eta: 3}", json.dumps({"type": "hyperband", **early})
    )
    assert load(tmp_path, text).early_terminate.rungs(BASE.train.epochs) == rungs


def test_only_run_cap_may_change_in_the_same_search(tmp_path):
    same = load(tmp_path, GOOD).definition
    assert load(tmp_path, GOOD.replace("run_cap: 40", "run_cap: 50")).definition == same
    for old, new in (
        ("gelu", "silu"),
        ("eta: 3", "eta: 2"),
        ("0.5", "0.4"),
        ("value: 12", "value: 9"),
    ):
        assert load(tmp_path, GOOD.replace(old, new)).definition != same
    assert load(tmp_path, GOOD + "seed: 1\n").definition != same
