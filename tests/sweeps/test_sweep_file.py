import json
from pathlib import Path

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import load_params
from fieldguide.core.recipes import SCRATCH
from fieldguide.sweeps.space import choices_of, with_values
from fieldguide.sweeps.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[2]
BASE = load_params(ROOT / "params.yaml")  # 32 pixels
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

HEAD = """\
method: {}
metric: {{name: val_acc, goal: maximize}}
run_cap: 10
parameters:
"""
RANDOM, ACTIVATION = HEAD.format("random"), "  activation: {values: [relu, gelu]}\n"
ENDS = ", whose min and max are the ends of the range"
ACTIVATIONS = CategoricalDistribution(["relu", "gelu"])


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
    for name in ("val/macro_f1", "val_macro_f1"):
        sweep = load(tmp_path, GOOD.replace("val_acc", name))
        assert (sweep.metric, sweep.goal) == ("val/macro_f1", "maximize")
    text = GOOD.replace("val_acc", "val_loss").replace("goal: maximize", "goal: minimize")
    assert load(tmp_path, text).goal == "minimize"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: bayes", "method: baies", "line 1: method: found 'baies'; allowed: 'grid'"),
        ("name: val_acc", "name: test/acc", "line 3: metric.name: found 'test/acc'"),
        (
            "goal: maximize",
            "goal: minimize",
            "line 4: metric.goal: found minimize of val/acc; allowed: ma",
        ),
        ("run_cap: 40", "runcap: 40", "line 5: runcap: unknown key; did you mean run_cap?"),
        ("run_cap: 40", "run_cap: 0", "line 5: run_cap: found 0; allowed: greater than or equal"),
        ("run_cap: 40\n", "", "line 1: run_cap: missing; allowed: 1 or more, which bayes n"),
        ("min_iter: 3", "min_itr: 3", "line 6: early_terminate.min_itr: unknown key; did you mean"),
        ("min_iter: 3", "min_iter: 12", "line 6: early_terminate: no rung lies before the last"),
        ("min_iter: 3, ", "", "line 6: early_terminate: found eta, type; allowed: either min_iter"),
        (
            "min_iter: 3",
            "max_iter: 9",
            "line 6: early_terminate: found eta, max_iter, type; allowed: eit",
        ),
        ("activation:", "activaton:", "line 8: activaton: is not a parameter of trials; did you"),
        (
            "  activation:",
            "  seed:",
            "line 8: seed: is ambiguous; allowed: data.seed or train.seed",
        ),
        (
            "  activation:",
            "  visualize.neurons:",
            "line 8: visualize.neurons: is not a parameter of",
        ),
        ("  activation:", "  batch_size:", "is not valid YAML: found duplicate key"),
        (
            "  epochs:\n",
            "  model.dropout: {value: 0}\n  epochs:\n",
            "dropout: is model.dropout",
        ),
        ("[relu, gelu]", "[relu, tanh]", "line 9: model.activation: found 'tanh'; allowed: 'relu'"),
        ("[relu, gelu]", "[relu, relu]", "line 9: model.activation: found 'relu' twice"),
        ("[relu, gelu]", "[]", "line 9: model.activation: found []; allowed: a list of values"),
        ("values: [relu, gelu]", "min: 1\n    max: 2", "model.activation: is not a number"),
        (
            "max: 1e-2",
            "max: 20",
            "line 13: train.learning_rate: found 20; allowed: auto, or less than",
        ),
        ("min: 1e-4", "min: 0", "line 12: train.learning_rate: min 0 of log_uniform_values"),
        ("min: 1e-4", "min: 1", "line 12: train.learning_rate: min 1, max 0.01; allowed: n"),
        ("min: 1e-4", "q: 1", "line 12: learning_rate.q: does not go with log_uniform_values"),
        ("    min: 1e-4\n", "", "learning_rate.min: is missing for log_uniform_values"),
        ("min: 16, max", "min: 16.5, max", "line 16: model.first_layer_filters: uniform draws fra"),
        ("q: 32", "q: 0", "line 15: train.batch_size: q 0; allowed: above 0"),
        ("q: 32", "q: 100", "line 15: train.batch_size: q 100; allowed: above 0 and at most max"),
        ("max: 1e-2", "max: .inf", "line 12: train.learning_rate: min 0.0001, max inf; allowed:"),
        ("max: 1e-2", f"max: 1{'0' * 400}", "line 12: train.learning_rate: min 0.0001, max 1"),
        ("q: 32", "q: 0.5", "line 15: train.batch_size: q_uniform of fractions; allowed: whole"),
        ("value: 12", "value: 12\n    values: [1]", "line 18: epochs.value: does not go with cat"),
        ("value: 12", "value: 0", "line 18: train.epochs: found 0; allowed: auto, or greater"),
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
        (GOOD, "- 1", "line 1: found [1]; allowed: a mapping with method, metric"),
        (GOOD, "method: [", "is not valid YAML"),
        (
            GOOD,
            "method: \0",
            "is not valid YAML: unacceptable character #x0000: special characters",
        ),
        (GOOD, GOOD + '"a\\nb": 1', "line 19: a b: unknown key; allowed: method"),
        (GOOD, GOOD + "seeds: 3\n  train.seed: {values: [1, 2]}", "is not valid YAML"),
        (
            "epochs:\n    value: 12\n",
            "train.seed: {values: [1, 2]}\nseeds: 2",
            "line 18: seeds: sets",
        ),
        (
            "epochs:\n    value: 12\n",
            "train_on_val:\n    values: [true, false]\n",
            "train.train_on_val: true leaves no photos to compare trials by; allowed in",
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
    assert len(str(error.value).splitlines()) == 1


def test_each_entry_has_one_line_for_its_first_mistake(tmp_path):
    text = GOOD.replace("[relu, gelu]", "[null, tanh, [x]]").replace("min: 1e-4", "mu: 0\n    q: a")
    with pytest.raises(ParamsError) as error:
        load(tmp_path, text.replace("value: 12", "value: 0"))
    lines = [line.split("sweep.yaml: ")[1] for line in str(error.value).splitlines()]
    assert lines == [
        "line 9: model.activation: found null; allowed: 'relu', 'gelu', 'silu' or 'mish'",
        "line 12: learning_rate.mu: does not go with log_uniform_values; allowed: min, max",
        "line 19: train.epochs: found 0; allowed: auto, or greater than or equal to 1",
    ]


def test_params_yaml_must_not_pause_or_train_on_the_validation_photos(tmp_path):
    (tmp_path / "sweep.yaml").write_text(GOOD)
    paused = with_values(BASE, {"train.stop_after": 3})
    with pytest.raises(ParamsError, match=r"^params\.yaml: train\.stop_after: found 3; allowed in"):
        load_sweep(tmp_path / "sweep.yaml", paused)
    unvalidated = with_values(BASE, {"train.train_on_val": True})
    with pytest.raises(ParamsError, match=r"^params\.yaml: train\.train_on_val: true leaves no"):
        load_sweep(tmp_path / "sweep.yaml", unvalidated)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"none\.yaml: cannot be read"):
        load_sweep(tmp_path / "none.yaml", BASE)


def test_grid_over_a_range_is_refused_and_over_steps_is_not(tmp_path):
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


def test_lists_are_text_for_optuna_and_lists_for_params_yaml(tmp_path):
    text = HEAD.format("grid") + (
        "  conv_layers: {value: 2}\n"
        "  filters: {values: [auto, [32, 64], [64, 64]]}\n"
        "  kernel_size: {values: [3, [5, 3]]}\n"
    )
    sweep = load(tmp_path, text)
    assert sweep.lists == {"model.filters", "model.kernel_size"}
    found = [sweep.values(one) for one in sweep.grid()]
    assert found == [
        {"model.filters": filters, "model.kernel_size": kernel}
        for filters in ("auto", [32, 64], [64, 64])
        for kernel in (3, [5, 3])
    ]
    assert with_values(BASE, {**sweep.fixed, **found[-1]}).model.kernels == [5, 3]
    # Optuna accepts these values, and its storage gives them back.
    study = optuna.create_study()
    for one in sweep.grid():
        study.add_trial(optuna.create_trial(params=one, distributions=sweep.space, value=0.0))
    assert [sweep.values(trial.params) for trial in study.trials] == found
    assert sweep.values(study.ask(sweep.space).params) in found


def test_auto_is_a_value_where_params_yaml_allows_it(tmp_path):
    text = (
        HEAD.format("grid") + "  learning_rate: {values: [auto, 0.01]}\n  epochs: {value: auto}\n"
    )
    sweep = load(tmp_path, text)
    found = [sweep.values(one) for one in sweep.grid()]
    assert found == [{"train.learning_rate": "auto"}, {"train.learning_rate": 0.01}]
    train = with_values(BASE, {**sweep.fixed, **found[0]}).train
    assert train.learning_rate == SCRATCH["learning_rate"]
    assert train.epochs == SCRATCH["epochs"]


def test_other_values_are_the_same_for_optuna_and_params_yaml(tmp_path):
    sweep = load(tmp_path, RANDOM + ACTIVATION + "  batch_norm: {values: [true, false]}\n")
    params = {"model.activation": "gelu", "model.batch_norm": True, "train.epochs": 3}
    assert sweep.values(params) == params


@pytest.mark.parametrize(
    ("text", "space", "fixed"),
    [
        (HEAD.format("grid") + ACTIVATION, {"model.activation": ACTIVATIONS}, {}),
        (HEAD.format("bayes") + ACTIVATION, {"model.activation": ACTIVATIONS}, {}),
        (
            RANDOM + "  activation: {distribution: categorical, values: [relu, gelu]}",
            {"model.activation": ACTIVATIONS},
            {},
        ),
        (
            RANDOM
            + ACTIVATION
            + "  epochs: {value: 5}\n  dropout: {distribution: constant, value: 0}",
            {"model.activation": ACTIVATIONS},
            {"train.epochs": 5, "model.dropout": 0.0},
        ),
        (
            RANDOM + "  batch_size: {min: 16, max: 64}\n"
            "  conv_layers: {distribution: int_uniform, min: 3, max: 5}",
            {
                "train.batch_size": IntDistribution(16, 64),
                "model.conv_layers": IntDistribution(3, 5),
            },
            {},
        ),
        (
            RANDOM + "  dropout: {min: 0.1, max: 0.5}\n"
            "  weight_decay: {distribution: uniform, min: 0, max: 1}",
            {
                "model.dropout": FloatDistribution(0.1, 0.5),
                "train.weight_decay": FloatDistribution(0, 1),
            },
            {},
        ),
        (  # 0.1 + 3 * 0.2 = 0.7 is the highest step up to 0.8; q is 1 by default
            RANDOM + "  dropout: {distribution: q_uniform, min: 0.1, max: 0.8, q: 0.2}\n"
            "  epochs: {distribution: q_uniform, min: 2, max: 9}\n"
            "  batch_size: {min: 32, max: 128, q: 32}",
            {
                "model.dropout": FloatDistribution(0.1, 0.7, step=0.2),
                "train.epochs": IntDistribution(2, 9),
                "train.batch_size": IntDistribution(32, 128, step=32),
            },
            {},
        ),
        (
            RANDOM + "  learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}",
            {"train.learning_rate": FloatDistribution(1e-5, 1e-1, log=True)},
            {},
        ),
        (
            RANDOM + "  batch_norm: {values: [true, false]}\n  use_augmentation: {value: false}",
            {"model.batch_norm": CategoricalDistribution([True, False])},
            {"train.use_augmentation": False},
        ),
        (
            RANDOM + "  filters: {values: [[32, 64], [64, 64]]}\n  conv_layers: {value: 2}",
            {"model.filters": CategoricalDistribution(["[32, 64]", "[64, 64]"])},
            {"model.conv_layers": 2},
        ),
        (
            RANDOM + ACTIVATION + "  filters: {value: [32, 64]}\n  conv_layers: {value: 2}",
            {"model.activation": ACTIVATIONS},
            {"model.filters": [32, 64], "model.conv_layers": 2},
        ),
        (
            RANDOM + "  learning_rate: &range {min: 0.01, max: 0.1}\n  weight_decay: *range\n"
            "  dropout: {<<: *range, max: 0.2}",
            {
                "train.learning_rate": FloatDistribution(0.01, 0.1),
                "train.weight_decay": FloatDistribution(0.01, 0.1),
                "model.dropout": FloatDistribution(0.01, 0.2),
            },
            {},
        ),
        (
            RANDOM + ACTIVATION + "program: train.py\nproject: birds\nentity: us\n"
            "description: two activations\ncommand: ['${env}', python, '${program}', '${args}']",
            {"model.activation": ACTIVATIONS},
            {},
        ),
        (
            RANDOM + ACTIVATION + "early_terminate: {type: hyperband, min_iter: 3, strict: false}",
            {"model.activation": ACTIVATIONS},
            {},
        ),
    ],
)
def test_features_of_wandb(tmp_path, text, space, fixed):
    sweep = load(tmp_path, text)
    assert (sweep.space, sweep.fixed) == (space, fixed)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            RANDOM + "  model: {parameters: {activation: {values: [relu, gelu]}}}",
            (
                "line 5: model.parameters: is not supported; write each inner parameter one "
                "level higher, by its full key, such as model.activation, or its last part"
            ),
        ),
        (
            RANDOM + "  dropout: {distribution: normal, mu: 0.3, sigma: 0.1}",
            f"line 5: dropout.distribution: found 'normal'; allowed: uniform{ENDS}",
        ),
        *[
            (
                RANDOM + f"  learning_rate:\n    distribution: {kind}\n    min: -9\n    max: -2",
                (
                    f"line 6: learning_rate.distribution: found '{kind}'; allowed: "
                    f"log_uniform_values{ENDS}"
                ),
            )
            for kind in (
                "log_uniform",
                "q_log_uniform",
                "q_log_uniform_values",
                "inv_log_uniform",
                "inv_log_uniform_values",
                "log_normal",
                "q_log_normal",
            )
        ],
        *[
            (
                RANDOM + f"  dropout: {{distribution: {kind}}}",
                f"line 5: dropout.distribution: found '{kind}'; allowed: uniform{ENDS}",
            )
            for kind in ("q_normal", "beta", "q_beta")
        ],
        (
            RANDOM + "  dropout: {distribution: int_unifrm, min: 1, max: 2}",
            "line 5: dropout.distribution: found 'int_unifrm'; did you mean int_uniform?",
        ),
        (
            RANDOM + "  dropout: {mu: 0.3, sigma: 0.1}",
            "line 5: dropout.mu: does not go with uniform; allowed: min, max",
        ),
        (
            RANDOM + "  activation: {values: [relu, gelu], probabilities: [0.3, 0.7]}",
            (
                "line 5: activation.probabilities: is not supported; delete it: all values are "
                "equally likely"
            ),
        ),
        (
            RANDOM + "  activation: {values: [relu, null]}",
            "line 5: model.activation: found null; allowed: 'relu', 'gelu', 'silu' or 'mish'",
        ),
        (
            RANDOM + "  epochs: {value: null}",
            "line 5: train.epochs: found null; allowed: auto, or integer",
        ),
        (
            RANDOM + "  epochs: 5",
            (
                "line 5: parameters.epochs: found 5; allowed: parameters by name, each with "
                "value, values, or min and max"
            ),
        ),
        (
            RANDOM + "  kernel_size: {values: [3, [3, 4, 5]]}",
            (
                "line 5: model.kernel_size: found [3, 4, 5]; allowed: an odd number of pixels "
                "from 1 to 11, or a list with one for each block"
            ),
        ),
        (
            RANDOM + "  filters: {values: [[32, 64], [64, 64]]}",
            "line 5: model.filters: found 2 entries; allowed: one for each of model.conv_layers: 5",
        ),
        (
            RANDOM + "  stop_after: {values: [3, 9]}",
            (
                "line 5: stop_after: is set by the sweep itself; allowed: early_terminate, or "
                "train.epochs for a shorter training"
            ),
        ),
        (
            RANDOM + "  train.monitor: {value: val/loss}",
            (
                "line 5: train.monitor: is set by the sweep itself; allowed: metric.name, which "
                "also decides the epoch that each trial keeps"
            ),
        ),
        (
            RANDOM + ACTIVATION + "early_terminate: {type: hyperband, min_iter: 3, strict: true}",
            "line 6: early_terminate.strict: found True; allowed: False",
        ),
        (
            RANDOM + ACTIVATION + "early_terminate: {type: hyperband, max_iter: 9}",
            (
                "line 6: early_terminate: found max_iter, type; allowed: either min_iter, or "
                "max_iter and s"
            ),
        ),
        (
            RANDOM + ACTIVATION + "early_terminate: {type: envelope}",
            "line 6: early_terminate.type: found 'envelope'; allowed: 'hyperband'",
        ),
        (
            RANDOM.replace("goal: maximize", "target: 0.9") + ACTIVATION,
            (
                "line 2: metric.target: is not supported; delete it: a sweep ends after run_cap "
                "configurations"
            ),
        ),
        (
            RANDOM.replace("metric: {name: val_acc, goal: maximize}\n", "") + ACTIVATION,
            (
                "line 1: metric: missing; allowed: a mapping with name: val/acc, val/macro_f1 or "
                "val/loss"
            ),
        ),
        (
            RANDOM + ACTIVATION + "controller: {type: local}",
            (
                "line 6: controller: is not supported; delete it: `fieldguide sweep run` chooses "
                "the trials"
            ),
        ),
        (
            HEAD.format("custom") + ACTIVATION,
            "line 1: method: found 'custom'; allowed: 'grid', 'random' or 'bayes'",
        ),
    ],
)
def test_other_features_of_wandb_are_refused_in_one_line(tmp_path, text, line):
    with pytest.raises(ParamsError) as error:
        load(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'sweep.yaml'}: {line}"
