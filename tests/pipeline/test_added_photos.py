"""Photos are added to a data set of several shards, and DVC pushes no more than they touch."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from project import TRACKED, Project

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
CAPACITY = (2**20 - 128) // (64 * 64 * 3)  # photos of 64 pixels in a MiB


def held_out(files, fraction=0.2, seed=0):
    """Names of the val photos: in each class those whose keyed hash has fewest below it."""
    chosen = set()
    for label in {name.split("/")[1] for name in files}:
        names = [name for name in files if name.split("/")[1] == label]
        salt = f"{seed} data.val_fraction ".encode()
        ranked = {
            name: hashlib.sha256(salt + hashlib.sha256(files[name]).digest()).hexdigest()
            for name in names
        }
        chosen |= set(sorted(names, key=ranked.get)[: round(len(names) * fraction)])
    return chosen


def leaves(split, photos):
    """{file name without ending: names of its photos} by counting who shares how many bits."""
    bits = {
        name: f"{int(hashlib.sha256(data).hexdigest(), 16):0256b}" for name, data in photos.items()
    }
    found = {}
    for name, own in bits.items():
        length = 0
        while sum(other.startswith(own[:length]) for other in bits.values()) > CAPACITY:
            length += 1
        found.setdefault(f"{split}-{own[:length]}".rstrip("-"), set()).add(name)
    return found


def expected_leaves(train, test):
    val = held_out(train)
    return {
        **leaves("train", {name: data for name, data in train.items() if name not in val}),
        **leaves("val", {name: data for name, data in train.items() if name in val}),
        **leaves("test", test),
    }


@pytest.fixture
def many(tmp_path, make_photos, pack):
    """A repository whose data set is a folder of one archive, prepared, committed and pushed."""
    folder = tmp_path / "project"
    (folder / "data" / "photos").mkdir(parents=True)
    for name in TRACKED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"archive": "data/photos", "image_size": 64, "shard_size": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    train, test = make_photos("train", each=200), make_photos("val", each=70, seed=1)
    pack(folder / "data" / "photos" / "first.zip", train | test)
    project = Project(folder)
    project.git("init", "--quiet", "--initial-branch=main")
    project.name_user()
    project.dvc("init", "--quiet")
    project.dvc("remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    project.dvc("add", "--quiet", "data/photos")
    project.dvc("repro", "--quiet", "prepare")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "photos")
    project.dvc("push", "--quiet")
    return project, train, test


def stored(folder):
    """Objects of a remote, by DVC's name for them."""
    files = (folder / "files" / "md5").glob("??/*")
    return {file.parent.name + file.name for file in files}


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_exactly_the_shards_that_added_photos_fall_into_are_pushed(
    many, make_photos, pack, tmp_path
):
    project, train, test = many
    prepared = project.folder / "data" / "prepared"
    before, had = expected_leaves(train, test), stored(tmp_path / "storage")
    assert {file.stem for file in prepared.glob("*.npy")} == before.keys()
    assert len(before) > 10

    added = make_photos("train", each=1, seed=2)
    second = pack(project.folder / "data" / "photos" / "second.zip", added)
    project.dvc("add", "--quiet", "data/photos")
    project.dvc("repro", "--quiet", "prepare")
    project.dvc("push", "--quiet")

    renamed = {f"{name} of second": data for name, data in added.items()}
    after = expected_leaves({**train, **renamed}, test)
    assert {file.stem for file in prepared.glob("*.npy")} == after.keys()
    written = {leaf for leaf, names in after.items() if before.get(leaf) != names}
    assert 0 < len(written) <= 6 < len(after)
    new = {leaf + ending for leaf in written for ending in (".npy", ".csv")}
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))
    photos = yaml.safe_load((project.folder / "data" / "photos.dvc").read_text(encoding="utf-8"))
    listings = {
        next(out["md5"] for out in outs if out["path"] == path)
        for outs, path in (
            (lock["stages"]["prepare"]["outs"], "data/prepared"),
            (lock["stages"]["prepare"]["outs"], "metrics/copies/prepare"),
            (photos["outs"], "photos"),
        )
    }
    expected = {md5(prepared / name) for name in new | {"dataset.json"}} | {md5(second)} | listings
    copies = project.folder / "metrics" / "copies" / "prepare"  # no photo more is left out
    expected |= {md5(copies / name) for name in ("prepare.json", "classes.csv")}
    assert stored(tmp_path / "storage") - had == expected


def test_a_list_of_archives_needs_its_lines_in_dvc_yaml(many):
    """DVC refuses a list in place of one path; with the entries it watches each archive."""
    project, *_ = many
    paths = json.dumps(["data/photos/first.zip", "data/second.zip"])
    project.edit("params.yaml", "archive: data/photos", f"archive: {paths}")
    assert "Cannot interpolate data of type 'list'" in project.dvc("repro", "prepare", status=255)
    shutil.copy(project.folder / "data/photos/first.zip", project.folder / "data/second.zip")
    project.edit("dvc.yaml", "${data.archive}", "${data.archive[0]}")
    message = project.dvc("repro", "prepare", status=255)
    assert "      - ${data.archive[1]}  # data/second.zip" in message
    project.edit("dvc.yaml", "${data.archive[0]}", "${data.archive[0]}\n      - ${data.archive[1]}")
    assert "600 files left out" in project.dvc("repro", "prepare")
    assert "Stage 'prepare' didn't change" in project.dvc("repro", "prepare")
    (project.folder / "data/second.zip").unlink()
    assert "data/second.zip" in project.dvc("status", "prepare")
