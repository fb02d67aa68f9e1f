"""Fixtures: small generated photos, archives of them, a prepared store, and a browser."""

import io
import os
import shutil
import signal
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fieldguide.core.params import Params
from fieldguide.core.store import Store
from fieldguide.prepare.prepare import prepare

# A process in the background of a shell ignores Ctrl-C, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Fixtures `finished` and `project`; `s3` and `ssh`; `cluster`.
pytest_plugins = ["project", "servers", "ray_cluster"]
ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def make_params():
    """Return the repository's params with changes: make_params(data={"seed": 1}, ...)."""

    def make(**changes):
        raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for section, values in changes.items():
            raw[section] |= values
        return Params.model_validate(raw)

    return make


@pytest.fixture(scope="session")
def make_photos():
    """Return {"<folder>/<class>/00.png": bytes, ...}: each class is noise on its own colour."""

    def make(folder="", classes=("ant", "bee", "crab"), each=4, *, pixels=20, seed=0):
        rng = np.random.default_rng(seed)
        files = {}
        for k, label in enumerate(classes):
            for number in range(each):
                grid = rng.integers(0, 100, (pixels, pixels, 3), dtype=np.uint8)
                grid[..., k % 3] += 120
                buffer = io.BytesIO()
                Image.fromarray(grid).save(buffer, "PNG", compress_level=1)
                name = f"{label}/{number:02d}.png"
                files[f"{folder}/{name}" if folder else name] = buffer.getvalue()
        return files

    return make


@pytest.fixture(scope="session")
def pack():
    """Write {name: bytes} as a zip, tar, tar.gz (.bz2, .xz) or folder; the suffix decides."""

    def write(path, files):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        elif ".tar" in path.suffixes:
            packed = path.suffix.removeprefix(".").removeprefix("tar")
            with tarfile.open(path, f"w:{packed}") as archive:
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        else:
            path.mkdir(exist_ok=True)
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        return path

    return write


@pytest.fixture(scope="session")
def store(tmp_path_factory, make_params, make_photos, pack):
    """A store of 3 classes, 16×16 pixels; of each class 16 train, 4 val and 5 test photos."""
    folder = tmp_path_factory.mktemp("store")
    files = {
        **make_photos("train", each=16, seed=0),
        **make_photos("val", each=4, seed=1),
        **make_photos("test", each=5, seed=2),
    }
    archive = pack(folder / "photos.zip", files)
    changes = {"archive": str(archive), "image_size": 16}
    params = make_params(data=changes, model={"conv_layers": 2})
    prepare(params.data, folder / "prepared")
    return Store(folder / "prepared")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--enable-unsafe-swiftshader",  # WebGL without a GPU; it draws the lines
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open a page; its requests, messages and errors are checked when the test ends."""
    requests, problems, opened, expected = [], [], [], []

    def go(path, ready):
        """Open the file and wait until the selector `ready` finds an element."""
        tab = browser.new_page(viewport={"width": 1300, "height": 1000})
        opened.append(tab)
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda message: problems.extend(_problem(message)))
        expected.append(path.as_uri())
        tab.goto(path.as_uri())
        tab.wait_for_selector(ready)
        return tab

    yield go
    for tab in opened:
        tab.close()
    assert problems == []
    # The page's icon is a data: URL, which is no request.
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == expected


def _problem(message):
    """Yield the text of an error or of a warning; Plotly's warnings have the type "trace"."""
    if message.type == "error" or message.text.startswith("WARN"):
        yield message.text


def pytest_collection_modifyitems(items):
    """Run fast tests first, so that a mistake shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
