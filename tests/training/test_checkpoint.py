"""A resumed training ends as if it had never been interrupted."""

import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fieldguide.core.store import Store
from fieldguide.prepare.prepare import prepare
from fieldguide.training.checkpoint import resume_folder, write_checkpoint

SRC = Path(__file__).resolve().parents[2] / "src"
KEY = "0123456789abcdef"
# Accuracy does not change, so that training stops after 1 + patience epochs.
STOPS_EARLY = {
    "learning_rate": 1e-12,
    "schedule": "constant",
    "optimizer": "sgd",
    "model": {"batch_norm": False},
    "epochs": 9,
    "patience": 2,
}


def finish_but_for_the_bundle(run_training, **changes):
    """Run a training; saving its classifier fails."""
    Path("not a folder").touch()
    with pytest.raises(FileExistsError, match="not a folder"):
        run_training(bundle=Path("not a folder/classifier"), **changes)


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    epoch, run_training, interrupt, checkpoints, capsys
):
    expected = run_training("uninterrupted")
    interrupt(epoch)
    assert len(checkpoints()) == (epoch > 1)
    capsys.readouterr()
    assert run_training() == expected
    assert (f"Going on after epoch {epoch - 1} of 5." in capsys.readouterr().out) == (epoch > 1)
    assert checkpoints() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "cosine"},
        {"optimizer": "nadam", "schedule": "constant"},
        {"optimizer": "rmsprop", "use_augmentation": False},
        {"precision": "bf16-mixed"},
        {"ema_decay": 0.8, "mixup": 0.2, "cutmix": 1.0, "crop": "resized", "random_erasing": 0.5},
        {"train_on_val": True, "ema_decay": 0.8, "schedule": "cosine"},
        {"start_size": 0.5, "gradient_clipping": 0.1, "model": {"pooling": "average"}},
    ],
    ids=str,
)
def test_resuming_works_with_other_params(changes, run_training, interrupt):
    expected = run_training("uninterrupted", **changes)
    interrupt(3, **changes)
    assert run_training(**changes) == expected


def test_a_training_can_be_interrupted_again_and_again(run_training, interrupt):
    expected = run_training("uninterrupted")
    for epoch in (2, 2, 3, 5):
        interrupt(epoch)
    assert run_training() == expected


def test_a_training_stopped_after_its_last_epoch_only_saves_the_classifier(
    run_training, checkpoints
):
    expected = run_training("uninterrupted")
    finish_but_for_the_bundle(run_training)
    assert len(checkpoints()) == 1
    assert run_training() == expected
    assert checkpoints() == []


def test_the_average_is_kept_if_only_the_classifier_is_missing(run_training):
    changes = {"ema_decay": 0.8, "train_on_val": True}
    expected = run_training("uninterrupted", **changes)
    finish_but_for_the_bundle(run_training, **changes)
    assert run_training(**changes) == expected


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_training_with_a_damaged_checkpoint_starts_again(
    kept, run_training, interrupt, checkpoints
):
    """For example after an interrupted copy to another disk."""
    expected = run_training("uninterrupted")
    interrupt(3)
    (checkpoint,) = checkpoints()
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert run_training() == expected
    assert checkpoints() == []


def test_patience_is_counted_across_an_interruption(run_training, interrupt):
    expected = run_training("uninterrupted", **STOPS_EARLY)
    interrupt(2, **STOPS_EARLY)
    assert run_training(**STOPS_EARLY) == expected


def test_a_training_interrupted_after_early_stopping_stays_stopped(run_training):
    expected = run_training("uninterrupted", **STOPS_EARLY)
    finish_but_for_the_bundle(run_training, **STOPS_EARLY)
    assert run_training(**STOPS_EARLY) == expected


def test_a_failure_after_the_last_epoch_leaves_no_output(run_training):
    finish_but_for_the_bundle(run_training)
    assert [file for file in Path("run").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"epochs": 6}, {"learning_rate": 0.02}, {"model": {"dropout": 0.2}}],
    ids=str,
)
def test_a_checkpoint_of_other_params_is_ignored(changes, run_training, interrupt, checkpoints):
    expected = run_training("uninterrupted", **changes)
    interrupt(3)
    (other,) = checkpoints()
    before = other.read_bytes()
    assert run_training(**changes) == expected
    assert other.read_bytes() == before


@pytest.fixture
def other_store(make_photos, pack, make_params, tmp_path):
    archive = pack(tmp_path / "other.zip", make_photos(each=20, seed=9))
    changes = {"archive": str(archive), "image_size": 16}
    prepare(make_params(data=changes, model={"conv_layers": 2}).data, tmp_path / "other")
    return Store(tmp_path / "other")


def test_a_checkpoint_of_other_data_is_ignored(run_training, interrupt, checkpoints, other_store):
    expected = run_training("uninterrupted", on=other_store)
    interrupt(3)
    assert run_training(on=other_store) == expected
    assert len(checkpoints()) == 1


def test_a_checkpoint_of_other_code_is_ignored(
    run_training, interrupt, checkpoints, tmp_path, monkeypatch
):
    interrupt(3)
    # The code is different now: the package has one more module.
    extra = tmp_path / "extra.py"
    extra.write_text("RATE = 1\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("fieldguide.extra", extra)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fieldguide.extra", module)
    run_training()
    assert len(checkpoints()) == 1


def test_checkpoints_are_in_the_project_and_not_in_the_workspace_of_an_experiment(
    run_training, interrupt, checkpoints, tmp_path, monkeypatch
):
    expected = run_training("uninterrupted")
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    for name in ("workspace 1", "workspace 2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "workspace 1")
    interrupt(3)
    (checkpoint,) = checkpoints()
    assert checkpoint.is_relative_to(tmp_path / "project" / ".fieldguide" / "resume")
    assert list(Path().rglob("*.ckpt")) == []
    monkeypatch.chdir(tmp_path / "workspace 2")
    assert run_training() == expected


def test_the_next_process_gets_the_folder_of_a_failure(tmp_path):
    folder = tmp_path / KEY / "0"

    def fail():
        with resume_folder(tmp_path / KEY) as given:
            assert given == folder
            (given / "last.ckpt").write_text("epoch 3")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    with resume_folder(tmp_path / KEY) as again:
        assert again == folder
        assert (again / "last.ckpt").read_text() == "epoch 3"


def test_a_folder_in_use_is_never_shared(tmp_path):
    with resume_folder(tmp_path / KEY) as first:
        (first / "last.ckpt").write_text("first")
        with resume_folder(tmp_path / KEY) as second, resume_folder(tmp_path / "other") as other:
            assert len({first, second, other}) == 3
            assert list(second.iterdir()) == []
        assert (first / "last.ckpt").read_text() == "first"


HOLDER = """
import sys, time
from pathlib import Path
from fieldguide.prepare.prepare import prepare
from fieldguide.core.store import Store
from fieldguide.training.checkpoint import resume_folder
with resume_folder(Path(sys.argv[1])) as folder:
    (folder / "last.ckpt").write_text("by the killed process")
    print(folder, flush=True)
    time.sleep(300)
"""


@pytest.mark.slow
def test_a_killed_process_frees_its_folder_for_the_next(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / KEY)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        theirs = Path(process.stdout.readline().strip())
        with resume_folder(tmp_path / KEY) as ours:
            assert ours != theirs
    finally:
        process.kill()
        process.communicate()
    with resume_folder(tmp_path / KEY) as ours:
        assert ours == theirs
        assert (ours / "last.ckpt").read_text() == "by the killed process"


def test_a_full_disk_raises_an_os_error_and_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_checkpoint({"weights": torch.zeros(100_000)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


CTRL_C = """
import random, signal, sys, torch
from pathlib import Path
from fieldguide.training.checkpoint import write_checkpoint

signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
rng, state = random.Random(0), {str(k): torch.zeros(100) for k in range(30)}
for _ in range(500):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 3e-3))
        write_checkpoint(state, Path(sys.argv[1]))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_ctrl_c_while_a_checkpoint_is_written_is_ctrl_c(tmp_path):
    """PyTorch turns an interrupted write into another error, or ends the process."""
    command = [sys.executable, "-c", CTRL_C, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, "")
