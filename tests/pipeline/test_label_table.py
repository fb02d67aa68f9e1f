"""DVC sees a change of a label table, and only the changed row is another one in the store."""

import csv
import zipfile

import pytest

SHARDS = ("dataset.json", "train.csv", "train.npy", "val.csv", "test.csv")


def labels_of(project):
    """Return the class of each photo of the store."""
    found = {}
    for name in ("train", "val", "test"):
        text = project.read(f"data/prepared/{name}.csv").decode().splitlines()
        found |= {line["source"]: line["class"] for line in csv.DictReader(text)}
    return found


@pytest.mark.slow
def test_a_table_gives_the_store_of_the_folders_and_each_row_counts(project):
    before, classes = (
        {name: project.read(f"data/prepared/{name}") for name in SHARDS},
        labels_of(project),
    )
    with zipfile.ZipFile(project.folder / "data" / "photos.zip") as archive:
        names = archive.namelist()
    rows = [f"{name},{name.split('/')[2]}\n" for name in names]
    table = project.folder / "data" / "labels" / "labels.csv"
    table.write_text("file,label\n" + "".join(rows), encoding="utf-8")
    project.edit("params.yaml", "labels: none", "labels: data/labels/labels.csv")
    project.dvc("repro", "prepare")
    assert {name: project.read(f"data/prepared/{name}") for name in SHARDS} == before

    changed = "photos/train/ant/001.png"
    project.edit("data/labels/labels.csv", f"{changed},ant", f"{changed},bee")
    project.dvc("repro", "prepare")
    assert labels_of(project) == {**classes, changed: "bee"}
