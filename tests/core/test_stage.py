"""A stage in its own process: exit status, messages and the file of durations."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROBE = "import errno, os, signal, sqlite3\nfrom fieldguide.core import errors, stage\n"
pytestmark = pytest.mark.slow


@pytest.fixture
def tree(tmp_path, make_photos, pack):
    """A copy of the project with a small archive."""
    folder = tmp_path / "tree"
    for name in ("src", "stages"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "dvc.yaml", folder)
    pack(folder / "photos.zip", make_photos(each=5))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["archive"] = "photos.zip"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder


def run(tree, *command, status=0, cwd=None, limit=None, **env):
    """Run Python with the code of the tree; return what it wrote to stderr."""

    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd or tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src"), **env},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_file_size if limit else None,
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def probe(tree, body, **options):
    """Run a stage named `probe` whose main is `body`."""
    text = f"{PROBE}def main(params):\n    {body}\nstage.run(main)\n"
    (tree / "stages" / "probe.py").write_text(text, encoding="utf-8")
    return run(tree, "stages/probe.py", **options)


def timing(tree):
    return json.loads((tree / "metrics" / "timing.json").read_text(encoding="utf-8"))


def test_prepare_writes_its_outputs(tree):
    run(tree, "stages/prepare.py")
    assert (tree / "data" / "prepared" / "dataset.json").is_file()
    metrics = json.loads((tree / "metrics" / "prepare.json").read_text(encoding="utf-8"))
    # 5 a class: 1 of 5 to test, then round(4 × 0.2) = 1 to val.
    assert metrics == {"photos": {"train": 9, "val": 3, "test": 3, "left_out": 0}}
    assert (tree / "plots" / "classes.csv").is_file()
    assert (tree / "plots" / "left_out.csv").is_file()


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("again", 2)])
def test_an_argument_does_not_run_the_stage(tree, argument, status):
    run(tree, "stages/prepare.py", argument, status=status)
    assert not (tree / "data").exists()


def test_another_tree_s_code_is_refused(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    error = run(tree, tree / "stages" / "prepare.py", cwd=other, status=3)
    assert f"{tree / 'src' / 'fieldguide'} instead of {other / 'src' / 'fieldguide'}, so" in error
    assert "Traceback" not in error
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_size: 32", "image_size: 7", "params.yaml:\n  data.image_size: found 7; allowed"),
        ("archive: photos.zip", "archive: no.zip", "data.archive: no.zip does not exist; allowed"),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(old, new, message, tree):
    file = tree / "params.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    error = run(tree, "stages/prepare.py", status=1)
    assert f"prepare: {message}" in error
    assert "Traceback" not in error
    assert not (tree / "metrics").exists()
    assert not list(tree.glob("data/*"))


def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(tree):
    # 15 photos of 32 × 32 × 3 bytes are 46,080.
    error = run(tree, "stages/prepare.py", status=75, limit=40_000)
    assert "prepare: the file would exceed the size limit" in error
    assert "Traceback" not in error
    assert list((tree / "data").iterdir()) == []
    assert not (tree / "metrics").exists()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("raise errors.TrainingError('the loss is NaN')", 1, "the loss is NaN"),
        (
            "raise OSError(errno.ENOSPC, 'x', 'a.npy')",
            75,
            "no space left on the device (a.npy); free some space and run `dvc repro` again",
        ),
        (
            "raise sqlite3.OperationalError('disk I/O error')",
            75,
            "DVC's state database cannot be written (disk I/O error); is the disk full?",
        ),
        (
            "raise MemoryError",
            1,
            "out of memory; lower data.image_size or choose a smaller model",
        ),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
    ],
)
def test_each_expected_failure_has_its_status_and_message(body, status, message, tree):
    assert probe(tree, body, status=status) == f"probe: {message}\n"
    assert not (tree / "metrics").exists()


def test_an_unexpected_error_keeps_its_traceback(tree):
    error = probe(tree, "raise OSError(errno.EIO, 'broken disk')", status=1)
    assert "Traceback" in error


NOTE = "return {'model': 'm', 'images_per_second': %s}"


def test_values_that_main_returns_are_recorded_with_the_duration(tree):
    (tree / "metrics").mkdir()
    (tree / "metrics" / "timing.json").write_text('{"other": {"seconds": 9.5}}', encoding="utf-8")
    probe(tree, NOTE % 12.5)
    found = timing(tree)
    assert found["other"] == {"seconds": 9.5}
    assert found["probe"]["images_per_second"] == 12.5
    assert found["probe"]["seconds"] >= 0


def test_the_same_model_keeps_its_note(tree):
    probe(tree, NOTE % 12.5)
    probe(tree, NOTE % 99)
    assert timing(tree)["probe"]["images_per_second"] == 12.5
    probe(tree, (NOTE % 99).replace("'m'", "'n'"))
    assert timing(tree)["probe"]["images_per_second"] == 99


@pytest.mark.parametrize("content", ["", "{", "[]", "null", b"\xff"])
def test_a_damaged_file_of_durations_is_replaced(content, tree):
    (tree / "metrics").mkdir()
    data = content if isinstance(content, bytes) else content.encode()
    (tree / "metrics" / "timing.json").write_bytes(data)
    probe(tree, NOTE % 1)
    assert list(timing(tree)) == ["probe"]


def test_only_the_first_of_several_processes_records(tree):
    probe(tree, NOTE % 1, RANK="1")
    assert not (tree / "metrics").exists()
    probe(tree, NOTE % 1, RANK="0")
    assert list(timing(tree)) == ["probe"]


def test_a_python_without_the_packages_tells_what_to_do(tree):
    error = run(tree, "-S", "stages/prepare.py", status=1)  # -S: no site-packages
    assert "has no module" in error
    assert "make venv" in error
    assert "Traceback" not in error
