"""Photos per second of a classifier, and seconds until it answers the first.

    python benchmarks/predict.py --model models/classifier --photos 1000 --rounds 3

The photos are the JPEG files of the sample's test folder. They are classified three ways: by the
classifier's folder and by its ONNX export (`predict_all`, loaded once), and over HTTP by
`fieldguide serve`, from four clients that keep their connections. All must give the same classes.
The ways take turns; medians are printed. A cold start is a whole `fieldguide predict` of one photo.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import fieldguide
from fieldguide.inference.export import write_onnx
from fieldguide.network.bundle import load_bundle

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample.zip"
COMMAND = [sys.executable, "-m", "fieldguide.cli"]
CLIENTS = 4
Way = Callable[[list[Path]], list[str]]  # takes photos, returns the names of their classes


def main() -> None:
    """Export the classifier, serve it, and time each way in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=Path("models/classifier"))
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        photos = unpack(SAMPLE, Path(name) / "photos", options.photos)
        onnx = Path(name) / "classifier.onnx"
        write_onnx(load_bundle(options.model), onnx)
        with served(options.model) as address:
            ways: dict[str, Way] = {
                "folder": predict_with(options.model),
                "ONNX file": predict_with(onnx),
                "HTTP": lambda photos: predict_over_http(address, photos),
            }
            rates = race(ways, photos, options.rounds)
        for way, rate in rates.items():
            print(f"{way:<10} {rate:8,.0f} photos/s")
        for way, seconds in cold_starts([options.model, onnx], photos[0], options.rounds).items():
            print(f"cold start {seconds:.2f} s, {way}")


def unpack(archive: Path, folder: Path, count: int) -> list[Path]:
    """Copy `count` photos of the sample's test folder, spread over its classes."""
    folder.mkdir()
    written = []
    with zipfile.ZipFile(archive) as packed:
        # sample/val/<class>/<number>.jpg: there is no folder "test", so `prepare` tests on "val".
        members = [one for one in packed.namelist() if PurePosixPath(one).parts[1] == "val"]
        step = max(1, len(members) // count)
        for member in members[::step][:count]:
            _, _, label, file = PurePosixPath(member).parts
            written.append(folder / f"{label}-{file}")
            written[-1].write_bytes(packed.read(member))
    return written


def predict_with(model: Path) -> Way:
    """Load a classifier once, as a long-running program does."""
    classifier = fieldguide.load(model)

    def predict(photos: list[Path]) -> list[str]:
        answers = []
        for photo in classifier.predict_all(photos):
            if isinstance(photo, Exception):
                raise photo
            answers.append(photo.label)
        return answers

    return predict


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Run the server on a free port and yield its host and port."""
    command = [*COMMAND, "serve", "--model", str(model), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line.startswith("Serving http://"):
                raise SystemExit(f"no server: {line!r}")
            yield urlsplit(line.split()[1]).netloc
        finally:
            server.terminate()


def predict_over_http(address: str, photos: list[Path]) -> list[str]:
    """Send the photos from CLIENTS clients, each over one connection."""
    answers = [""] * len(photos)

    def client(first: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        for k in range(first, len(photos), CLIENTS):
            connection.request("POST", "/api/predict", photos[k].read_bytes())
            response = connection.getresponse()
            body = response.read()
            if response.status != http.client.OK:
                raise SystemExit(f"{photos[k].name}: {response.status} {body!r}")
            answers[k] = json.loads(body)["classes"][0]["class"]
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    return answers


def race(ways: dict[str, Way], photos: list[Path], rounds: int) -> dict[str, float]:
    """Return the photos per second of each way, after a first pass that compares the answers."""
    answers = {name: way(photos) for name, way in ways.items()}
    first, *others = answers.values()
    for name, classes in answers.items():
        different = sum(a != b for a, b in zip(first, classes, strict=True))
        if different:
            raise SystemExit(f"{name}: another class for {different} of {len(photos)} photos")
    print(f"{len(photos):,} photos; the same classes {1 + len(others)} ways")
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(photos)
            taken[name].append(time.perf_counter() - start)
    return {name: len(photos) / statistics.median(seconds) for name, seconds in taken.items()}


def cold_starts(models: list[Path], photo: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds of `fieldguide predict` of one photo, models in turn."""
    taken: dict[str, list[float]] = {model.name: [] for model in models}
    for _ in range(rounds):
        for model in models:
            start = time.perf_counter()
            command = [*COMMAND, "predict", "--model", str(model), str(photo)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[model.name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
