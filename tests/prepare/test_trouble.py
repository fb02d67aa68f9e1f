"""A folder with all kinds of trouble: every file is read, skipped as hidden, or named."""

import csv
import io

from PIL import Image

from fieldguide.prepare.counts import write_counts
from fieldguide.prepare.prepare import prepare


def bytes_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def trouble(photos):
    """Return {name: bytes} of files that are left out, by reason, and of hidden files."""
    good, other = list(photos.values())[:2]
    picture = Image.open(io.BytesIO(good))
    damaged = bytearray(good)
    damaged[len(damaged) // 2] ^= 0x55
    left_out = {
        "unreadable": {
            "photos/ant/cut.jpg": bytes_of(picture, "JPEG")[:200],
            "photos/ant/empty.jpg": b"",
            "photos/ant/text.png": b"not a picture",
            "photos/bee/damaged.png": bytes(damaged),
            "photos/bee/page.png": b"<!doctype html><title>404</title>",
            "photos/crab/canon.jpg": b"II*\0\x10\0\0\0CR\2\0" + bytes(300),
        },
        "too small": {"photos/crab/icon.png": bytes_of(picture.resize((3, 3)))},
        "too large": {"photos/crab/huge.png": bytes_of(Image.new("1", (20_000, 20_000)))},
        "duplicate": {
            "photos/ant/copy.png": good,
            "photos/bee/of ant.png": bytes_of(picture.rotate(90)),
            "photos/ant/of bee.png": bytes_of(picture.rotate(90)),
        },
        "misplaced": {"cover.jpg": other, "photos/readme.png": other},
        "not a photo": {
            "photos/ant/IMG_1.CR2": b"raw",
            "photos/ant/IMG_2.CR2": b"raw",
            "photos/ant/IMG_3.mov": b"film",
            "photos/bee/notes.txt": b"text",
            "photos/bee/IMG_4": good,
            "photos/crab/1.jpg.part": good[:100],
            "photos/labels.csv": b"a,b",
            "LICENSE": b"free",
        },
    }
    hidden = [
        *("photos/ant/._00.png", "photos/ant/.DS_Store", "photos/bee/Thumbs.db", "__MACOSX/a.png"),
        *("photos/bee/desktop.ini", "photos/@eaDir/00.png/SYNOPHOTO.jpg", "#recycle/ant/00.png"),
        *("$RECYCLE.BIN/1.png", ".Trash-1000/files/1.png", "photos/ant/.thumbnails/00.png"),
        *("lost+found/1.png", "photos/.ipynb_checkpoints/00-checkpoint.png"),
    ]
    return left_out, dict.fromkeys(hidden, good)


def test_every_file_is_read_or_named(tmp_path, make_photos, make_params, pack, capsys):
    photos = make_photos("photos", each=10, pixels=16)
    left_out, hidden = trouble(photos)
    files = {name: data for group in left_out.values() for name, data in group.items()}
    archive = pack(tmp_path / "trouble", {**photos, **files, **hidden})
    data = {"archive": str(archive), "image_size": 16, "max_unreadable": 0.5}
    params = make_params(data=data, model={"conv_layers": 2})
    prepared = prepare(params.data, tmp_path / "prepared")
    paths = {name: tmp_path / f"{name}.out" for name in ("metrics", "classes", "left_out")}
    write_counts(prepared, **paths)

    with (tmp_path / "prepared" / "left_out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["file"]: row["reason"] for row in rows}
    assert found == {name: reason for reason, group in left_out.items() for name in group}
    counts = [count for of_split in prepared.counts.values() for count in of_split.values()]
    assert sum(count.photos for count in counts) == len(photos)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "21 files left out, named in data/prepared/left_out.csv:" in lines
    assert "2 unreadable bee" in " ".join(lines)
    assert "2 not a photo ant .cr2: photos/ant/IMG_1.CR2, photos/ant/IMG_2.CR2" in lines
    assert "1 not a photo bee no suffix: photos/bee/IMG_4" in lines
    assert "2 misplaced - outside the class folders: cover.jpg, photos/readme.png" in lines
