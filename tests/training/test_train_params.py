"""Every param of `train` has an effect that a test sees."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from curves import curves_of

from fieldguide.core.params import TrainParams
from fieldguide.network.cnn import CNN
from fieldguide.training.device import autocast
from fieldguide.training.loop import update_weights
from fieldguide.training.optimizers import make_optimizer, make_schedule

HERE = Path(__file__).parent
RESIZED = {"crop": "resized"}
ANY_SIZE = {"model": {"pooling": "average"}}
# By param: two values, and what else must be set. The classifiers of both differ.
DIFFERENT_WEIGHTS = {
    "batch_size": (10, 24, {}),
    "epochs": (2, 3, {}),
    "optimizer": ("adamw", "nadam", {}),
    "learning_rate": (0.01, 0.02, {}),
    "schedule": ("one_cycle", "cosine", {}),
    "warmup": (0.3, 0.6, {}),
    "weight_decay": (0.05, 0.5, {}),
    "gradient_clipping": (0.0, 0.5, {}),
    "ema_decay": (0.0, 0.9, {}),
    "label_smoothing": (0.1, 0.2, {}),
    "balance": ("none", "sampler", {}),
    "use_augmentation": (True, False, {}),
    "crop": ("shift", "none", {}),
    "crop_area": (0.35, 0.9, RESIZED),
    "color_jitter": (0.0, 0.5, {}),
    "random_erasing": (0.0, 0.9, {}),
    "mixup": (0.0, 0.5, {}),
    "cutmix": (0.0, 0.5, {}),
    "start_size": (1.0, 0.5, ANY_SIZE),
    "train_on_val": (False, True, {}),
    "precision": ("32", "bf16-mixed", {}),
    "seed": (0, 1, {}),
}
# Params of which another test sees the effect.
SEEN_BY = {
    "target_precision": "test_the_kept_network_is_calibrated_on_the_validation_photos",
    "stop_after": "test_a_training_in_rungs_equals_one_without_a_stop",
    "balance_beta": "test_weights_by_hand",
    "monitor": "test_the_monitored_metric_decides_which_epoch_is_kept",
    "patience": "test_training_stops_after_patience_epochs_without_a_better_one",
    "accelerator": "test_an_accelerator_that_is_not_there_is_refused",
    "devices": "test_several_processes_train_what_one_does_with_all_their_photos",
    "num_nodes": "test_two_hosts_train_together_and_end_together",
    "strategy": "test_ddp_of_one_process_opens_a_connection",
    "compile": "test_compiling_without_a_compiler_is_a_mistake",
}


def test_every_param_is_here():
    assert {*DIFFERENT_WEIGHTS, *SEEN_BY} == set(TrainParams.model_fields)
    tests = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py"))
    for name in SEEN_BY.values():
        assert f"def {name}(" in tests


@pytest.mark.parametrize("name", DIFFERENT_WEIGHTS)
def test_another_value_gives_another_classifier(name, run_training):
    first, second, others = DIFFERENT_WEIGHTS[name]
    settings = {"epochs": 2} | others
    one = run_training("one", **settings | {name: first})
    two = run_training("two", **settings | {name: second})
    assert one["classifier/model.safetensors"] != two["classifier/model.safetensors"]
    for files, value in ((one, first), (two, second)):
        curves = curves_of(files["curves.csv"])
        assert len(curves["train_loss"]) == (value if name == "epochs" else 2)
        assert ("val_acc" in curves) != (name == "train_on_val" and value)


@pytest.fixture
def step(tiny_params):
    """Makes one step of SGD with a scaler of 16-mixed, on the CPU; returns weights and scaler."""

    def make(scaler, *, factor=1.0, **changes):
        settings = {"optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant"}
        params = tiny_params(**settings, **changes).train
        if scaler.is_enabled():
            params = params.model_copy(update={"precision": "16-mixed"})
        torch.manual_seed(0)
        net = CNN(tiny_params(model={"dropout": 0.0}).model, image_size=16, num_classes=3)
        optimizer = make_optimizer(net, params)
        training = SimpleNamespace(
            params=params,
            net=net,
            optimizer=optimizer,
            schedule=make_schedule(optimizer, params, steps=1),
            scaler=scaler,
            averages=None,
        )
        images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        update_weights(training, net(images).square().mean() * factor)
        return {name: value.detach() for name, value in net.named_parameters()}

    return make


def scaler_of(scale, *, enabled=True):
    return torch.amp.GradScaler("cpu", init_scale=scale, enabled=enabled)


@pytest.mark.parametrize("clipping", [0.0, 0.01])
def test_gradients_of_16_mixed_are_unscaled_before_they_are_clipped(clipping, step):
    plain = step(scaler_of(1.0, enabled=False), gradient_clipping=clipping)
    scaled = step(scaler_of(2.0**16), gradient_clipping=clipping)
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value, rtol=1e-5, atol=1e-7)


def test_a_step_of_16_mixed_that_overflows_is_skipped_and_the_scale_is_halved(step):
    scaler = scaler_of(2.0**16)
    before = step(scaler_of(2.0**16), learning_rate=1e-12)
    after = step(scaler, factor=float("inf"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)],
)
def test_precision_decides_the_type_of_scores(precision, dtype, tiny_params):
    params = tiny_params().train.model_copy(update={"precision": precision})
    layer = torch.nn.Linear(4, 2)
    with autocast(params, torch.device("cpu")):
        assert layer(torch.zeros(3, 4)).dtype == dtype
