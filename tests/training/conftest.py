"""Runs tiny trainings, each test in its own folder."""

import contextlib
import io
import os
import signal
from pathlib import Path

import pytest

from fieldguide.training.loop import train
from fieldguide.training.outputs import Outputs

# With dropout, augmentation and batch norm, because an interruption could disturb each of them.
MODEL = {
    "conv_layers": 2,
    "first_layer_filters": 4,
    "filter_org": 2.0,
    "pooling": "flatten",
    "num_neurons_dense": 8,
    "dropout": 0.3,
}
TRAIN = {"epochs": 5, "patience": 5, "batch_size": 10, "learning_rate": 0.01, "accelerator": "cpu"}


class CtrlC(io.StringIO):
    """Standard output that raises Ctrl-C when it gets a text.

    If the text is the line of an epoch, the checkpoint of that epoch is not saved yet.
    """

    def __init__(self, text):
        super().__init__()
        self.text = text

    def write(self, text):
        if self.text in text:
            self.text = "\0"  # once
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def files_in(folder):
    """{path: bytes} of every file below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Change to an empty folder, and let Ctrl-C raise KeyboardInterrupt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    # Processes that a shell starts in the background ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def tiny_params(make_params):
    def make(model=None, data=None, **changes):
        return make_params(
            compute={"portable": False},  # trained in this process
            data={"image_size": 16} | (data or {}),
            model=MODEL | (model or {}),
            train=TRAIN | changes,
        )

    return make


@pytest.fixture
def run_training(store, tiny_params):
    """Trains into a folder and returns {path: bytes} of its files."""

    def run(name="run", *, on=None, bundle=None, unchecked=None, auto=None, **changes):
        params = tiny_params(**changes)
        folder = Path(name)
        outputs = Outputs(
            bundle=bundle or folder / "classifier",
            metrics=folder / "metrics",
            curves=folder / "curves.csv",
            summary=folder / "model_summary.txt",
            environment=folder / "environment.json",
        )
        settings = params.train.model_copy(update=unchecked or {})
        train(settings, params.model, store=on or store, outputs=outputs, auto=auto)
        return files_in(folder)

    return run


@pytest.fixture
def interrupt(run_training):
    """Runs a training until it prints the line of an epoch; checks that it leaves no outputs."""

    def run(epoch, name="run", **changes):
        of = changes.get("epochs", 5)
        ctrl_c = contextlib.redirect_stdout(CtrlC(f"{epoch:>4}/{of:<4}"))
        with ctrl_c, pytest.raises(KeyboardInterrupt):
            run_training(name, **changes)
        assert [file for file in Path(name).rglob("*") if file.is_file()] == []

    return run


@pytest.fixture
def checkpoints():
    """Finds the checkpoints of interrupted trainings."""
    return lambda: sorted(Path(os.environ.get("DVC_ROOT", ".")).rglob("*.ckpt"))
