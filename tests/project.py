"""A real Git and DVC repository with a small pipeline that has run once."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TRACKED = [
    *("src", "stages", "models/weights", "data/labels", "dvc.yaml"),
    *(".dvcignore", ".gitignore", "requirements.lock"),
]
# Small, but an epoch takes about half a second, so that a test can kill the training in it.
CHANGES = {
    "compute": {"threads": 1},
    "data": {"archive": "data/photos.zip", "image_size": 32},
    # The same number of filters in each layer: drawing more takes longer than training them.
    "model": {
        "conv_layers": 3,
        "first_layer_filters": 16,
        "filter_org": 1.0,
        "num_neurons_dense": 16,
    },
    "train": {"epochs": 6, "batch_size": 16, "patience": 6, "learning_rate": 0.002},
    "visualize": {"photos_per_class": 2, "neurons": 4},
}


def write_photos(path, classes=("ant", "bee", "crab"), each=150):
    """Write noisy stripes; each class has its colour and width: easy, but not trivial."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(classes):
            for number in range(each):
                base = np.full((32, 32, 3), 60.0)
                base[:, (np.arange(32) // (2 + k)) % 2 == 0, k % 3] = 160
                noisy = (base + rng.normal(0, 60, base.shape)).clip(0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(noisy).save(buffer, "PNG")
                folder = "val" if number % 5 == 0 else "train"
                entry = zipfile.ZipInfo(f"photos/{folder}/{name}/{number:03d}.png")
                archive.writestr(entry, buffer.getvalue())


def remote_at(url, name="storage"):
    """Return the lines of a default remote for `.dvc/config`."""
    return f"[core]\nremote = {name}\n['remote \"{name}\"']\nurl = {url}\n"


class Project:
    """A folder in which tests run commands as a user does."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
        }
        for name in ("DVC_ROOT", "PYTHONPATH"):
            self.env.pop(name, None)

    def clone(self, folder, source=None):
        """Clone a Git remote, or this folder, as another person does."""
        self.git("clone", "--quiet", source or self.folder, folder)
        other = type(self)(folder)
        other.name_user()
        return other

    def name_user(self):
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@localhost")

    def start(self, *command):
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command, status=0):
        process = self.start(*command)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        return output

    def dvc(self, *command, status=0):
        return self.run(sys.executable, "-m", "dvc", *command, status=status)

    def git(self, *command):
        return self.run("git", *command)

    def fieldguide(self, *command, status=0):
        """Run `fieldguide` with the code of this repository, wherever the project is."""
        return self.run(
            *("env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, "-m", "fieldguide.cli"),
            *command,
            status=status,
        )

    def edit(self, name, old, new):
        file = self.folder / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.unlink()  # an output of DVC may be a link into its cache
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def read(self, name):
        return (self.folder / name).read_bytes()


def make_project(folder):
    """Run the pipeline once, commit the results, and return what `dvc repro` printed."""
    (folder / "data").mkdir(parents=True)
    for name in TRACKED:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in CHANGES.items():
        params[section] |= values
    text = yaml.safe_dump(params, sort_keys=False)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    write_photos(folder / "data" / "photos.zip")
    project = Project(folder)
    project.git("init", "--quiet", "--initial-branch=main")
    project.name_user()
    project.dvc("init", "--quiet")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "photos and pipeline")
    output = project.dvc("repro")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "first results")
    return output


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """The project after its first `dvc repro`, committed. Tests may read it, but not change it.

    All workers of pytest-xdist share one.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished" / "project"
    printed = folder.with_name("printed.txt")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name("lock")):
        if not printed.exists():
            printed.write_text(make_project(folder), encoding="utf-8")
    project = Project(folder)
    project.output = printed.read_text(encoding="utf-8")
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, which a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)
