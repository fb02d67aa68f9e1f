"""benchmarks/split_by_bursts.py: its photos, a small run, and the table of docs/splits.md."""

import io
import json
import os
import subprocess
import sys
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import split_by_bursts
from PIL import Image

from fieldguide.prepare.bursts import when_taken

ROOT = Path(__file__).resolve().parents[2]


def test_the_frames_of_a_burst_share_the_background_and_follow_one_another(tmp_path):
    packed = split_by_bursts.write_bursts(tmp_path / "a.zip", bursts=2, frames=3, seed=0)
    again = split_by_bursts.write_bursts(tmp_path / "b.zip", bursts=2, frames=3, seed=0)
    assert packed.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(packed) as file:
        photos = {name: file.read(name) for name in file.namelist()}
    assert len(set(photos.values())) == 5 * 2 * 3
    pixels = {name: np.asarray(Image.open(io.BytesIO(data)), int) for name, data in photos.items()}
    burst = [pixels[f"disc/00_{frame:02d}.jpg"] for frame in range(3)]
    other = pixels["disc/01_00.jpg"]
    # The median of the differences of pixels: most pixels are background.
    inside = max(np.median(abs(one - two)) for one, two in combinations(burst, 2))
    assert inside < np.median(abs(burst[0] - other))
    times = [when_taken(photos[f"disc/00_{frame:02d}.jpg"]).milliseconds for frame in range(3)]
    assert np.diff(times).tolist() == [1000, 1000]


def test_a_small_run_has_a_row_for_each_way_to_split(tmp_path):
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "benchmarks/split_by_bursts.py", "--bursts", "3", "--new", "1"]
    command += ["--frames", "3", "--epochs", "1", "--seeds", "0", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    rows = {row["way"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert list(rows) == list(split_by_bursts.WAYS)
    assert rows["random"]["seen"] > 0.5
    assert rows["group"]["seen"] == rows["burst_seconds"]["seen"] == 0
    for row in rows.values():
        assert sum(row["photos"].values()) == 5 * 3 * 3
    for line in split_by_bursts.table(rows.values()):
        assert line in done.stdout


def test_the_page_has_the_table_of_the_rows():
    lines = split_by_bursts.table(split_by_bursts.read_rows(split_by_bursts.ROWS))
    page = (ROOT / "docs/splits.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page
