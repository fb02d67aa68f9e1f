"""The bytes of a small training, constant on every x86 processor with AVX2."""

import os

import portable
import pytest

SMALL = ["train.epochs=1", "visualize.neurons=1", "visualize.photos_per_class=1"]
OTHER = [
    *("model.kernel_size=5", "model.conv_layers=3", "model.activation=mish"),
    *("train.optimizer=rmsprop", "train.crop=resized", "train.random_erasing=0.5"),
    *("train.mixup=0.2", "train.ema_decay=0.9", "train.gradient_clipping=1.0"),
    "compute.threads=1",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "model", "predictions"),
    [([], "f3c0d86c4616", "0449e88010ff"), (OTHER, "aa01cca6fe30", "cc464a67877c")],
)
def test_a_small_training_gives_the_same_bytes_everywhere(settings, model, predictions, tmp_path):
    project = portable.make_project(tmp_path / "project", 20, [*SMALL, *settings])
    found = portable.run(project, [], os.sched_getaffinity(0))
    assert [one[:12] for one in found[:2]] == [model, predictions]
