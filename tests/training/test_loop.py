"""Whole trainings on the CPU: what they write and what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from curves import curves_of
from pydantic import ValidationError

from fieldguide.core.errors import FieldguideError, TrainingError
from fieldguide.core.store import Store
from fieldguide.network.bundle import load_bundle
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing

# With these params, weights and running statistics do not change.
STILL = {
    "learning_rate": 1e-12,
    "schedule": "constant",
    "optimizer": "sgd",
    "use_augmentation": False,
    "model": {"batch_norm": False, "dropout": 0.0},
}
CURVES = [
    *("train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1", "val_bal_acc"),
    *("learning_rate", "kept"),
]
EVERY_FILE = {
    "classifier/model.json",
    "classifier/model.safetensors",
    "curves.csv",
    "environment.json",
    "metrics/metrics.json",
    "model_summary.txt",
}


def curve(files, name):
    return curves_of(files["curves.csv"])[name]


@torch.no_grad()
def scores_of(bundle, split):
    """Return the scores of every photo, normalised by NumPy."""
    pixels = split.images(np.arange(len(split))) / 255
    mean, std = bundle.preprocessing.mean, bundle.preprocessing.std
    images = (pixels - np.array(mean)) / np.array(std)
    return bundle.net(torch.from_numpy(images).permute(0, 3, 1, 2).float()).double()


def accuracy_of(bundle, split):
    return float(np.mean(scores_of(bundle, split).argmax(1).numpy() == split.labels))


def smoothed_loss(scores, labels, smoothing):
    """Return the cross-entropy; the target has 1 - s for the true class, plus s / K for all K."""
    logs = scores.log_softmax(1).numpy()
    target = np.full(logs.shape, smoothing / logs.shape[1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return float(-(target * logs).sum(1).mean())


def test_every_output_is_written_and_nothing_else(run_training, checkpoints):
    files = run_training()
    assert set(files) == EVERY_FILE
    assert checkpoints() == []
    curves = curves_of(files["curves.csv"])
    assert {name: len(values) for name, values in curves.items()} == dict.fromkeys(CURVES, 5)


def test_metrics_json_has_the_kept_epoch_and_the_number_of_parameters(run_training):
    files = run_training()
    metrics = json.loads(files["metrics/metrics.json"])
    accuracy = curve(files, "val_acc")
    kept = int(np.argmax(accuracy))
    names = ("val_loss", "val_acc", "val_macro_f1", "val_bal_acc")
    assert metrics == {
        "best": {name: curve(files, name)[kept] for name in names},
        "parameters": {"trained": 2235, "all": 2235},  # see the next test
    }


def test_the_summary_has_every_layer(run_training, capsys):
    # 4 filters of 24×3×3 after whitening and 8 of 4×3×3, each with two parameters of batch norm;
    # 8·4·4 -> 8 -> 3 with biases.
    total = 24 * 9 * 4 + 8 + 4 * 9 * 8 + 16 + (8 * 4 * 4 + 1) * 8 + (8 + 1) * 3
    summary = run_training(epochs=1)["model_summary.txt"].decode()
    assert summary in capsys.readouterr().out
    assert f"{total:,}" in summary.splitlines()[1]
    assert "features.conv2.conv" in summary


def test_same_seed_gives_the_same_bytes(run_training):
    assert run_training("one") == run_training("two")


def test_seed_0_is_a_seed_and_another_one_differs(run_training):
    zero, one = run_training("zero", seed=0), run_training("one", seed=1)
    for name in ("classifier/model.safetensors", "curves.csv"):
        assert zero[name] != one[name]


def test_earlier_random_numbers_do_not_matter(run_training):
    first = run_training("one", epochs=2)
    torch.manual_seed(99)
    np.random.default_rng().random(5)
    assert run_training("two", epochs=2) == first


def test_loss_and_accuracy_are_means_over_photos(run_training, store):
    # 48 photos are batches of 10, 10, 10, 9 and 9, so that a mean of means would be different.
    files = run_training(**STILL, epochs=1, batch_size=11, label_smoothing=0.2)
    bundle = load_bundle(Path("run/classifier"))
    for name, smoothing in (("train", 0.2), ("val", 0.0)):
        split = store.split(name)
        expected = smoothed_loss(scores_of(bundle, split), split.labels, smoothing)
        assert curve(files, f"{name}_loss") == [pytest.approx(expected, rel=1e-5)]
        assert curve(files, f"{name}_acc") == [pytest.approx(accuracy_of(bundle, split), abs=1e-6)]


# At this learning rate val_acc goes up and down, so that the best epoch is not the last.
RESTLESS = {"schedule": "constant", "learning_rate": 0.1, "optimizer": "sgd", "patience": 100}


def test_weights_of_the_best_epoch_are_kept(run_training, store):
    files = run_training(**RESTLESS, epochs=10)
    accuracy = curve(files, "val_acc")
    best = int(np.argmax(accuracy)) + 1
    assert best < len(accuracy), "the test needs a best epoch that is not the last"
    assert curve(files, "kept").index(1) + 1 == best
    bundle = load_bundle(Path("run/classifier"))
    assert bundle.val_acc == max(accuracy)
    assert accuracy_of(bundle, store.split("val")) == pytest.approx(max(accuracy))
    # At a constant rate a training that ends with this epoch has the same weights.
    shorter = run_training("shorter", **RESTLESS, epochs=best)
    for name in ("classifier/model.safetensors", "classifier/model.json"):
        assert files[name] == shorter[name]


def test_of_equal_epochs_the_first_is_kept(run_training, capsys):
    run_training(**STILL, epochs=3)
    assert "Kept epoch 1 of 3" in capsys.readouterr().out


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_patience_epochs_without_a_better_one(patience, run_training):
    files = run_training(**STILL, epochs=9, patience=patience)
    assert len(curve(files, "val_acc")) == 1 + patience


def test_the_classifier_has_classes_and_preprocessing(run_training, store, tiny_params):
    run_training(epochs=1)
    bundle = load_bundle(Path("run/classifier"))
    assert bundle.architecture == tiny_params().model.architecture
    assert (bundle.classes, bundle.image_size) == (store.classes, 16)
    assert bundle.preprocessing == Preprocessing(16, "bilinear", store.mean, store.std)
    assert (bundle.resize, bundle.started_from) == (store.resize, "none")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_augmentation": False},
        {"color_jitter": 0.0},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-mixed", "gradient_clipping": 0.5},
        {"batch_size": 1},
        {"batch_size": 8192, "epochs": 1},  # one step in all
        {"schedule": "cosine", "optimizer": "nadam"},
        {"model": {"activation": "gelu", "batch_norm": False}},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"crop": "resized", "random_erasing": 1.0},
        {"gradient_clipping": 0.5},
        {"model": {"residual_units": 1, "norm_after_activation": True, "num_neurons_dense": 0}},
        {"model": {"filters": [3, 5], "kernel_size": [5, 3]}},
    ],
    ids=str,
)
def test_other_settings_train_too(changes, run_training):
    files = run_training(**({"epochs": 2} | changes))
    assert set(files) == EVERY_FILE
    assert np.isfinite([curve(files, name) for name in CURVES]).all()


def test_bf16_stays_near_32(run_training):
    full = curve(run_training("full", epochs=2), "train_loss")
    half = curve(run_training("half", epochs=2, precision="bf16-mixed"), "train_loss")
    assert full != half
    assert half == pytest.approx(full, rel=0.1)


def test_augmentation_changes_training_but_not_validation(run_training):
    plain = run_training("plain", **STILL, epochs=1)
    augmented = run_training("augmented", **(STILL | {"use_augmentation": True}), epochs=1)
    assert curve(plain, "train_loss") != curve(augmented, "train_loss")
    assert curve(plain, "val_loss") == curve(augmented, "val_loss")


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_changes_training_but_not_validation(mix, run_training):
    still = STILL | {"use_augmentation": True}
    plain = run_training("plain", **still, epochs=1)
    mixed = run_training("mixed", **still, **{mix: 1.0}, epochs=1)
    unaugmented = run_training("unaugmented", **STILL, **{mix: 1.0}, epochs=1)
    assert curve(plain, "train_loss") != curve(mixed, "train_loss")
    assert curve(plain, "val_loss") == curve(mixed, "val_loss")
    plain_too = run_training("plain too", **STILL, epochs=1)
    assert curve(unaugmented, "train_loss") == curve(plain_too, "train_loss")


# One step per epoch, so that a training of k epochs has the weights after k steps.
STEPS = {
    "batch_size": 8192,
    "schedule": "constant",
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "train_on_val": True,
}


def weights_of(name):
    return load_bundle(Path(name) / "classifier").net.state_dict()


def test_averaged_weights_by_hand(run_training):
    for steps in (1, 2, 3):
        run_training(f"{steps}", **STEPS, epochs=steps)
    after = [weights_of(f"{steps}") for steps in (1, 2, 3)]
    # After n updates the decay is (1 + n) / (10 + n), here 2/11, then 3/12, but at most ema_decay.
    for decay, (second, third) in {0.75: (2 / 11, 0.25), 0.2: (2 / 11, 0.2)}.items():
        run_training(f"{decay}", **STEPS, epochs=3, ema_decay=decay)
        averaged = weights_of(f"{decay}")
        for name in ("features.conv1.conv.weight", "features.conv2.norm.running_mean"):
            one, two, three = (state[name] for state in after)
            expected = third * (second * one + (1 - second) * two) + (1 - third) * three
            torch.testing.assert_close(averaged[name], expected)
            assert not torch.equal(averaged[name], three)


def test_the_average_of_a_short_training_is_not_dominated_by_the_first_weights(run_training):
    """A constant decay of 0.9999 would leave them 99.6 % after these 40 steps."""
    files = run_training(epochs=8, ema_decay=0.9999, learning_rate=0.01)
    assert max(curve(files, "val_acc")) > 0.6


def test_the_averaged_weights_are_validated_and_saved(run_training, store):
    files = run_training(epochs=4, ema_decay=0.5, schedule="constant", learning_rate=0.01)
    bundle = load_bundle(Path("run/classifier"))
    assert bundle.val_acc == max(curve(files, "val_acc"))
    assert accuracy_of(bundle, store.split("val")) == pytest.approx(bundle.val_acc, abs=1e-6)


def test_training_on_val_uses_all_photos_and_keeps_the_last_epoch(run_training, store, capsys):
    files = run_training(epochs=3, train_on_val=True, patience=1)
    assert "Kept epoch 3 of 3: the last" in capsys.readouterr().out
    metrics = json.loads(files["metrics/metrics.json"])
    assert "best" not in metrics
    curves = curves_of(files["curves.csv"])
    assert set(curves) == {"train_loss", "train_acc", "learning_rate", "kept"}
    assert curves["kept"] == [0, 0, 1]
    assert load_bundle(Path("run/classifier")).val_acc is None
    # If weights do not change, the mean loss of an epoch tells which photos it had.
    files = run_training("still", **STILL, epochs=1, train_on_val=True, label_smoothing=0.0)
    both = store.split("train", "val")
    assert len(both) == len(store.split("train")) + len(store.split("val"))
    scores = scores_of(load_bundle(Path("still/classifier")), both)
    expected = smoothed_loss(scores, both.labels, 0.0)
    assert curve(files, "train_loss") == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_features_of_frozen_blocks_are_never_mixed(mix, run_training):
    run_training("first", epochs=1)
    shutil.copytree("first/classifier", "models/weights/old")
    changes = {"epochs": 1, "model": {"weights": "old", "finetune": "head"}}
    assert run_training("mixed", **changes, **{mix: 1.0}) == run_training("plain", **changes)


def test_a_start_size_that_leads_to_a_size_the_network_does_not_take_is_refused(run_training):
    model = {"name": "test_vit", "input_size": 32}  # of patches of 16 pixels
    with pytest.raises(TrainingError, match=r"train.start_size: test_vit does not take 24 pixels"):
        run_training(model=model, start_size=0.5, epochs=3)
    assert not Path("run").exists()


def test_a_start_size_below_what_an_earlier_classifier_takes_is_refused(run_training):
    model = {"conv_layers": 4, "pooling": "average"}
    run_training("first", model=model, epochs=1)
    shutil.copytree("first/classifier", "models/weights/old")
    with pytest.raises(TrainingError, match=r"train.start_size: .* of 8 pixels, which 4 blocks"):
        run_training(model=model | {"weights": "old"}, start_size=0.5, epochs=3)
    assert not Path("run").exists()


def test_clipping_limits_the_first_step(run_training):
    steps = STEPS | {"weight_decay": 0.0, "epochs": 1}
    run_training("start", **(steps | {"learning_rate": 1e-12}))
    run_training("clipped", **steps, gradient_clipping=0.01)
    before, after = weights_of("start"), weights_of("clipped")
    learned = [name for name in before if "running" not in name and "batches" not in name]
    moved = sum((after[name] - before[name]).square().sum() for name in learned).sqrt()
    # Nesterov's first step is the gradient × (1 + momentum), where momentum is 0.9.
    assert float(moved) == pytest.approx(0.5 * 1.9 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("optimizer", "reminded"), [("adamw", False), ("sgd", True)])
def test_an_automatic_rate_for_another_optimizer_is_pointed_out(
    optimizer, reminded, run_training, capsys
):
    run_training(optimizer=optimizer, schedule="one_cycle", auto={"learning_rate": 4e-3}, epochs=1)
    hint = "train.learning_rate: auto is for adamw with one_cycle; with sgd and one_cycle another"
    assert (hint in capsys.readouterr().out) == reminded


def test_photos_grow_in_the_first_two_thirds_of_the_epochs(run_training, monkeypatch):
    seen = []
    forward = CNN.forward_features

    def watched(net, images):
        if net.training:
            seen.append(images.shape[-1])
        return forward(net, images)

    monkeypatch.setattr(CNN, "forward_features", watched)
    run_training(epochs=3, batch_size=8192, start_size=0.5, model={"pooling": "average"})
    # 16 × 1/2; 16 × 3/4 = 12, rounded to a multiple of 8 (a tie, to the even multiple); 16.
    assert seen == [8, 16, 16]


def test_batch_norm_over_a_single_number_is_a_mistake(run_training):
    # Four blocks leave one pixel of 16; with the norm last, a batch of one photo has one number.
    model = {"conv_layers": 4, "norm_after_activation": True}
    with pytest.raises(TrainingError, match=r"train.batch_size: 1 leaves batch norm a single"):
        run_training(model=model, batch_size=1, epochs=1)
    assert Path("run").is_dir()
    assert [file for file in Path("run").rglob("*") if file.is_file()] == []


@pytest.mark.slow
def test_compiling_without_a_compiler_is_a_mistake(run_training, monkeypatch):
    monkeypatch.setenv("PATH", "nowhere")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path("cache").absolute()))
    monkeypatch.setenv("CXX", "")
    with pytest.raises(TrainingError, match=r"train.compile: true does not work here .*allowed"):
        # Other layers than any before, or PyTorch has the code already.
        run_training(epochs=1, compile=True, model={"first_layer_filters": 7})


@pytest.mark.slow
def test_a_compiled_training_is_near_the_plain_one(run_training):
    # Without dropout, because compiled code draws other random numbers for it.
    changes = {"epochs": 2, "model": {"dropout": 0.0}}
    plain, compiled = (
        run_training("plain", **changes),
        run_training("compiled", **changes, compile=True),
    )
    assert curve(compiled, "train_loss") == pytest.approx(curve(plain, "train_loss"), rel=1e-2)
    assert set(compiled) == EVERY_FILE
    assert sorted(weights_of("compiled")) == sorted(weights_of("plain"))


def test_a_val_split_without_photos_is_refused(run_training, store, tmp_path):
    """For example if every photo in the val folder is a copy of a test photo."""
    folder = tmp_path / "store"
    shutil.copytree(store.folder, folder)
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    description["shards"]["val"] = []
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(FieldguideError, match="val split is empty"):
        run_training(on=Store(folder))


def test_fp16_is_refused_on_a_cpu(run_training):
    with pytest.raises(
        ValidationError, match=r'"16-mixed" needs a GPU, and train\.accelerator is cpu'
    ):
        run_training(precision="16-mixed")
    # With train.accelerator: auto, params cannot know that there is no GPU.
    with pytest.raises(TrainingError, match='"16-mixed" needs a GPU, and this machine has none'):
        run_training(unchecked={"precision": "16-mixed"})
    assert not Path("run").exists()


def test_an_accelerator_that_is_not_there_is_refused(run_training):
    missing = "mps" if torch.cuda.is_available() else "gpu"
    with pytest.raises(
        TrainingError, match=f"train.accelerator: {missing}, .*not possible on this machine"
    ):
        run_training(accelerator=missing)
    assert not Path("run").exists()
