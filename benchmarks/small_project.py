"""Make two small projects: this one with few photos, and one whose only stage does nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from contender import NOT_A_USERS, ROOT
from ruamel.yaml import YAML

BIN = Path(sys.executable).parent
PHOTOS = 24  # of each class and split of the sample
SETTINGS = {
    "data": {"archive": "data/photos.zip", "image_size": 32},
    "train": {"epochs": 1},
    "visualize": {"photos_per_class": 1, "neurons": 1},
}
EMPTY = "stages:\n  nothing:\n    cmd: touch out\n    params: [number]\n    outs: [out]\n"


def environment(**more: str) -> dict[str, str]:
    """Return a user's environment variables: all cores, bytecode, this venv first in PATH."""
    kept = {k: v for k, v in os.environ.items() if k not in NOT_A_USERS}
    who = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "benchmark"), ("EMAIL", "benchmark@localhost"))
    }
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return {**kept, **who, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, **more}


def run(*command: str, folder: Path) -> float:
    """Run a command that must succeed and return its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return seconds


def small_project(folder: Path) -> Path:
    """Copy this project, make its params and photos small, run the pipeline once and commit."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "src", "stages", "models", "dvc.yaml", ".dvc*", ".gitignore"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, values in SETTINGS.items():
        params[section].update(values)
    yaml.dump(params, folder / "params.yaml")
    _shrink(ROOT / "data" / "sample.zip", folder / "data" / "photos.zip")
    _commit(folder)
    return folder


def empty_project(folder: Path) -> Path:
    """Make a project of one stage that does nothing, with this project's DVC settings."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy2(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / "dvc.yaml").write_text(EMPTY, encoding="utf-8")
    (folder / "params.yaml").write_text("number: 0\n", encoding="utf-8")
    _commit(folder)
    return folder


def _shrink(sample: Path, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    with zipfile.ZipFile(sample) as whole, zipfile.ZipFile(archive, "w") as small:
        for entry in whole.infolist():
            place = entry.filename.rpartition("/")[0]
            taken[place] = taken.get(place, 0) + 1
            if not entry.is_dir() and taken[place] <= PHOTOS:
                small.writestr(entry, whole.read(entry))


def _commit(folder: Path) -> None:
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    run("git", "init", "--quiet", folder=folder)
    run("git", "commit", "--quiet", "--allow-empty", "--message", "start", folder=folder)
    run("dvc", "repro", folder=folder)
    run("git", "add", "--all", folder=folder)
    run("git", "commit", "--quiet", "--message", "results", folder=folder)
