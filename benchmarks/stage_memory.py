"""Peak memory of each stage on 100,000 photos, which the benchmark draws.

    python benchmarks/stage_memory.py [--quick]

A zip holds photos of 32 pixels: noise, of which no two look the same. The default network, or with
--quick a small one, trains for one epoch. Each stage runs as DVC runs it. Twenty times a second,
/proc is read for the peak memory so far of each of its processes (VmHWM) and for the pages of files
in it (RssFile: libraries and the prepared store), which the kernel frees when it needs memory. The
target is for the sum of the peaks minus the weights of the model.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from contender import ROOT
from photos import jpeg
from PIL import Image
from ruamel.yaml import YAML
from side_by_side import OURS, Row
from small_project import environment

PHOTOS = 100_000
CLASSES = 10
TEST = 10  # one photo of this many is in the test folder
PIXELS = 32
BOUND = 2048.0  # MiB
EVERY = 0.05  # s
STAGES = ("prepare", "train", "evaluate", "visualize")
LIMITS = {
    "prepare": "names, hashes and rows of all photos, and a few megabytes of pixels",
    "train": "the import of PyTorch, and the mapped pages of the store",
    "evaluate": "the import of PyTorch and scikit-learn, and the predictions of the test set",
    "visualize": "the import of PyTorch and Matplotlib, and the largest figure",
}


def rows(*, quick: bool) -> list[Row]:
    """Measure all stages; `quick` trains a smaller network on as many photos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tree in ("src", "stages"):
            shutil.copytree(ROOT / tree, folder / tree, ignore=shutil.ignore_patterns("*.pyc"))
        write_archive(folder / "photos.zip")
        _write_params(folder, quick=quick)
        found = []
        for stage in STAGES:
            whole, mapped, seconds = peak(stage, folder)
            size = _weights(folder) if stage != "prepare" else 0.0
            print(f"  {stage:<10} {whole:,.0f} MiB, mapped {mapped:,.0f} MiB, {seconds:.0f} s")
            limit = f"{LIMITS[stage]}; up to {mapped:,.0f} MiB are mapped files"
            network = "a small network" if quick else "the default network"
            work = f"peak memory of {stage}, {PHOTOS:,} photos of {PIXELS} pixels, {network}"
            measured = {OURS: [whole - size]}
            found.append(Row(work, "MiB", measured, None, BOUND, at_least=False, limit=limit))
        return found


def write_archive(path: Path) -> None:
    """Write the photos."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(PHOTOS):
            split = "test" if k // CLASSES % TEST == 0 else "train"
            name = f"{split}/class {k % CLASSES}/{k:06d}.jpg"
            archive.writestr(name, _jpeg(rng, k % CLASSES))


def _jpeg(rng: np.random.Generator, label: int) -> bytes:
    pixels = rng.integers(0, 120, (PIXELS, PIXELS, 3), dtype=np.uint8)
    pixels[:, :, label % 3] += np.uint8(10 * label)
    return jpeg(Image.fromarray(pixels))


def peak(stage: str, folder: Path) -> tuple[float, float, float]:
    """Run a stage and watch its memory.

    Returns:
        Peak MiB of its processes, peak MiB of the files that they mapped, and seconds.
    """
    start = time.perf_counter()
    whole = mapped = 0.0
    command = [sys.executable, f"stages/{stage}.py"]
    with (
        (folder / f"{stage}.log").open("w+b") as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(PYTHONPATH="src"),
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        while process.poll() is None:
            now = _memory(process.pid)
            whole, mapped = max(whole, now[0]), max(mapped, now[1])
            time.sleep(EVERY)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{stage}: {log.read().decode(errors='replace')}")
    return whole, mapped, time.perf_counter() - start


def _memory(pid: int) -> tuple[float, float]:
    """Return MiB of the process and its children: their peaks so far, and files mapped now."""
    whole = mapped = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        except OSError:  # the process has just ended
            continue
        lines = dict(line.split(":", 1) for line in text.splitlines())
        whole += _kib(lines, "VmHWM")
        mapped += _kib(lines, "RssFile")
    return whole / 1024, mapped / 1024


def _kib(lines: dict[str, str], name: str) -> int:
    return int(lines.get(name, "0").split()[0])  # a process that is ending has no such line


def _write_params(folder: Path, *, quick: bool) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["data"].update({"archive": "photos.zip", "image_size": PIXELS})
    params["train"].update({"epochs": 1})
    if quick:
        params["model"].update({"first_layer_filters": 4, "num_neurons_dense": 32})
    yaml.dump(params, folder / "params.yaml")


def _weights(folder: Path) -> float:
    """Return the MiB of the classifier's weights."""
    return (folder / "models" / "classifier" / "model.safetensors").stat().st_size / 2**20


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="train a smaller network")
    for row in rows(quick=parser.parse_args().quick):
        met = "met" if row.met else "missed"
        print(f"{row.work}: {row.ratio:,.0f} MiB, bound {row.bound:,.0f}: {met}")


if __name__ == "__main__":
    main()
