"""Trainings that are killed or interrupted, by one process or by two that share the work."""

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from curves import curves_of
from forked import ROOT, SCRIPT, Started, end, files_in, signal_at_epoch

from fieldguide.core.errors import TrainingError
from fieldguide.core.store import Store
from fieldguide.network.bundle import load_bundle
from fieldguide.prepare.prepare import prepare
from fieldguide.training.loaders import make_loaders
from fieldguide.training.processes import Processes

pytestmark = pytest.mark.slow


def start_stage(*command, cwd, **env):
    """Start a new process, as DVC does."""
    inherited = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT / "src"), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_a_killed_training_goes_on_in_another_workspace(
    script, store, tiny_params, run_training, tmp_path
):
    changes = {"epochs": 40, "patience": 40}
    arguments = (str(script), str(store.folder), "run", tiny_params(**changes).model_dump_json())
    for name in ("project", "first", "second"):
        (tmp_path / name).mkdir()
    environment = {"DVC_ROOT": str(tmp_path / "project")}

    killed = Started(*arguments, cwd=tmp_path / "first", **environment)
    signal_at_epoch(killed, signal.SIGKILL, tmp_path / "first/run/curves.csv", 3)
    assert end(killed)[0] == -signal.SIGKILL
    assert len(list((tmp_path / "project").rglob("last.ckpt"))) == 1
    assert not (tmp_path / "first/run/classifier").exists()

    status, output = end(Started(*arguments, cwd=tmp_path / "second", **environment))
    assert status == 0, output
    assert "Going on after epoch" in output
    assert files_in(tmp_path / "second/run") == run_training("uninterrupted", **changes)
    assert list((tmp_path / "project").rglob("last.ckpt")) == []


def test_ctrl_c_ends_the_stage_without_traceback_and_without_outputs(store, tiny_params, tmp_path):
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(store.folder, tmp_path / "data" / "prepared")
    params = tiny_params(epochs=10_000, patience=10_000).model_dump()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    process = start_stage("stages/train.py", cwd=tmp_path, PYTHONPATH="src")
    signal_at_epoch(process, signal.SIGINT, tmp_path / "plots/curves.csv", 2)
    status, output = end(process)
    assert status > 0
    assert "Traceback" not in output
    assert not (tmp_path / "models").exists()
    assert files_in(tmp_path / "metrics") == files_in(tmp_path / "plots") == {}


UNUSED = "torch._dynamo", "torchvision", "timm", "scipy.stats", "sklearn", "matplotlib", "pandas"


@pytest.mark.parametrize("optimizer", ["adam", "muon", "sgd"])
def test_a_training_imports_nothing_that_it_does_not_use(optimizer, store, make_params, tmp_path):
    script = tmp_path / "script.py"
    ending = f"print('imported:', [name for name in {UNUSED} if name in sys.modules])"
    script.write_text(f"{SCRIPT}\n{ending}\n", encoding="utf-8")
    changes = {"epochs": 1, "accelerator": "cpu", "optimizer": optimizer}
    params = make_params(train=changes, model={"conv_layers": 2})
    arguments = (str(script), str(store.folder), "run", params.model_dump_json())
    status, output = end(start_stage(*arguments, cwd=tmp_path))
    assert status == 0, output
    assert output.splitlines()[-1] == "imported: []"


@pytest.fixture(scope="module")
def odd_store(make_photos, make_params, pack, tmp_path_factory):
    """27 photos to train and 9 to validate, which two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("odd")
    files = {
        **make_photos("train", each=9, seed=0),
        **make_photos("val", each=3, seed=1),
        **make_photos("test", each=3, seed=2),
    }
    changes = {"archive": str(pack(folder / "photos.zip", files)), "image_size": 16}
    prepare(make_params(data=changes, model={"conv_layers": 2}).data, folder / "prepared")
    return Store(folder / "prepared")


@pytest.fixture(scope="module")
def for_two(odd_store, tiny_params, tmp_path_factory):
    """Arguments of SCRIPT for a training by two processes."""
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    params = tiny_params(devices=2, epochs=25, patience=25, label_smoothing=0.0)
    return str(path), str(odd_store.folder), "run", params.model_dump_json()


@pytest.fixture(scope="module")
def two_processes(for_two, tmp_path_factory):
    """Folders of two trainings by two processes: one that ended and one that was killed."""
    ended, killed = tmp_path_factory.mktemp("ended"), tmp_path_factory.mktemp("killed")
    first, second = Started(*for_two, cwd=ended), Started(*for_two, cwd=killed)
    signal_at_epoch(second, signal.SIGKILL, killed / "run/curves.csv", 3)
    assert end(second)[0] == -signal.SIGKILL
    status, output = end(first)
    assert status == 0, output
    assert output.count("Kept epoch") == 1
    assert output.count("  25/25 ") == 1
    return ended, killed


def test_two_processes_write_one_set_of_outputs(two_processes):
    ended, _ = two_processes
    assert {name.split("/")[0] for name in files_in(ended / "run")} == {
        *("classifier", "metrics", "curves.csv", "model_summary.txt", "environment.json")
    }
    assert list(ended.rglob("*.ckpt")) == []


def test_two_processes_log_means_over_all_photos(two_processes, odd_store):
    """Not a mean of the means of five and four photos."""
    run = two_processes[0] / "run"
    curves = curves_of((run / "curves.csv").read_bytes())
    accuracy = curves["val_acc"]
    assert [9 * value for value in accuracy] == pytest.approx(
        [round(9 * value) for value in accuracy], abs=1e-5
    )
    assert max(accuracy) <= 1
    bundle, split = load_bundle(run / "classifier"), odd_store.split("val")
    pixels = torch.from_numpy(split.images(np.arange(9)) / 255)
    mean, std = bundle.preprocessing.mean, bundle.preprocessing.std
    images = (pixels - torch.tensor(mean)) / torch.tensor(std)
    with torch.no_grad():
        logs = bundle.net(images.permute(0, 3, 1, 2).float()).log_softmax(1).numpy()
    best = int(np.argmax(accuracy))
    assert accuracy[best] == pytest.approx((logs.argmax(1) == split.labels).mean())
    expected = -logs[np.arange(9), split.labels].mean()
    assert curves["val_loss"][best] == pytest.approx(expected, rel=1e-4)
    kept = json.loads((run / "metrics/metrics.json").read_text(encoding="utf-8"))["best"]
    names = ("val_acc", "val_loss", "val_macro_f1", "val_bal_acc")
    assert kept == {name: curves[name][best] for name in names}


def test_two_killed_processes_go_on_together(two_processes, for_two):
    ended, killed = two_processes
    status, output = end(Started(*for_two, cwd=killed))
    assert status == 0, output
    assert output.count("Going on after epoch") == 1
    assert files_in(killed / "run") == files_in(ended / "run")
    assert list(killed.rglob("*.ckpt")) == []


def test_fewer_photos_than_processes_are_refused(store, tiny_params):
    """No process may have an empty slice of a step."""
    params = tiny_params()
    initial = SimpleNamespace(preprocessing=SimpleNamespace(size=16))
    many = Processes(torch.device("cpu"), rank=0, count=1000)
    with pytest.raises(TrainingError, match=r"train\.devices: 1 × .* found \d+ in train; allowed"):
        make_loaders(params.train, params.model, store=store, initial=initial, processes=many)
