"""Photos as bytes, good and hostile, and the results of a project."""

import io
import json
import struct
import zlib

import numpy as np
import yaml
from PIL import Image

from fieldguide.core.files import folder_md5, md5


def picture(kind, size=(40, 30), seed=0, **settings):
    """Make a photo of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def huge_png(width, height):
    """Make a PNG file of a few kilobytes with that many black pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def huge_jpeg(width, height):
    """Make a small progressive JPEG file whose header names another size."""
    data = bytearray(picture("JPEG", progressive=True))
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def write_results(model, *, hits, photos):
    """Write the test results of a classifier in the project PROJECT/models/NAME."""
    project = model.parent.parent
    metrics = {"test": {"acc": hits / photos, "macro_f1": 0.5, "top3_acc": 0.9, "ece": 0.03}}
    trust = {
        "photos": photos,
        "temperature": 1.5,
        "nll": 0.7,
        "nll_before": 0.9,
        "ece": 0.03,
        "ece_before": 0.1,
        "target_precision": 0.95,
        "min_confidence": 0.834,
        "accepted": 700,
        "right": 670,
        "aurc": 0.05,
    }
    rows = ["ant,ant"] * hits + ["ant,bee"] * (photos - hits)
    outs = []
    for name, text in (
        ("metrics/test.json", json.dumps(metrics)),
        ("metrics/trust.json", json.dumps(trust)),
        ("plots/confusion.csv", "\n".join(["actual,predicted", *rows, ""])),
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
        outs.append({"path": name, "md5": md5(text.encode())})
    trained = {"path": "models/classifier", "md5": folder_md5(model)}
    stages = {"train": {"cmd": "true", "outs": [trained]}}
    stages["evaluate"] = {"cmd": "true", "deps": [trained], "outs": outs}
    lock = {"stages": stages}
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
