r"""Train, evaluate and draw as different processors do, and compare the bytes.

    python benchmarks/portable.py                        # this processor: 1, 2 and all cores
    python benchmarks/portable.py --photos 20 --set train.epochs=1 --under 'qemu-x86_64 -cpu EPYC'

`--under` puts a command before `python`, and may be repeated. QEMU's user mode (qemu-user) emulates
another processor, some 50 times slower than this one. Exit status 1: some bytes differ.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import yaml
from contender import ROOT
from rich import box
from rich.console import Console
from rich.table import Table

from fieldguide.core.files import folder_md5, md5

STAGES = ("train", "evaluate", "visualize")
OUTPUTS = (
    *("models/classifier", "metrics/predictions.csv", "metrics/test.json", "metrics/trust.json"),
    "plots/figures",
)


def main() -> None:
    """Run the stages once for each processor and number of cores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--under", action="append", default=[], help="command before python")
    parser.add_argument("--photos", type=int, help="of each class and split; all by default")
    parser.add_argument("--set", action="append", default=[], help="param, as train.epochs=1")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ways: list[tuple[list[str], int]] = [
        ([], count) for count in sorted({1, 2, len(cores)}) if count <= len(cores)
    ]
    ways += [(shlex.split(command), len(cores)) for command in options.under]
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project", options.photos, options.set)
        found = {}
        for prefix, count in ways:
            name = f"{' '.join(prefix) or 'this processor'}, {count} of {len(cores)} cores"
            print(f"{name} ...", file=sys.stderr, flush=True)
            copy = Path(folder) / "copy"
            shutil.copytree(project, copy)
            found[name] = run(copy, prefix, set(cores[:count]))
            shutil.rmtree(copy)
    _print(found)
    sys.exit(len({tuple(hashes) for hashes in found.values()}) > 1)


def make_project(folder: Path, photos: int | None, settings: list[str]) -> Path:
    """Copy code and params, and prepare the sample or the first photos of each of its folders."""
    for name in ("src", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for setting in settings:
        (section, key), value = setting.split("=")[0].split("."), setting.split("=", 1)[1]
        params[section][key] = yaml.safe_load(value)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "data").mkdir()
    with (
        zipfile.ZipFile(ROOT / "data" / "sample.zip") as whole,
        zipfile.ZipFile(folder / "data" / "sample.zip", "w") as part,
    ):
        seen = Counter[str]()
        for name in sorted(whole.namelist()):
            place = name.rpartition("/")[0]
            seen[place] += 1
            if not name.endswith("/") and (photos is None or seen[place] <= photos):
                part.writestr(zipfile.ZipInfo(name), whole.read(name))
    _stage(folder, "prepare", [])
    return folder


def run(project: Path, prefix: list[str], cores: set[int]) -> list[str]:
    """Run the stages of a prepared project on some cores; return the hash of each output."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        for name in STAGES:
            _stage(project, name, prefix)
    finally:
        os.sched_setaffinity(0, before)
    paths = [project / name for name in OUTPUTS]
    return [folder_md5(path) if path.is_dir() else md5(path.read_bytes()) for path in paths]


def _stage(project: Path, name: str, prefix: list[str]) -> None:
    done = subprocess.run(
        [*prefix, sys.executable, f"stages/{name}.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


def _print(found: dict[str, list[str]]) -> None:
    table = Table("", *OUTPUTS, box=box.SIMPLE_HEAD)
    first = next(iter(found.values()))
    for name, hashes in found.items():
        marks = (
            h[:8] if h == one else f"{h[:8]} differs" for h, one in zip(hashes, first, strict=True)
        )
        table.add_row(name, *marks)
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
