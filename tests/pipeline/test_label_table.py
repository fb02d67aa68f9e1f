"""DVC sees a change of a label table, and only the changed row is another one in the store."""

import csv
import json
import re
import sys
import urllib.request
import zipfile

import pytest
from project import ROOT

from fieldguide.audit.audit import write_suspects
from fieldguide.audit.suspect import LABEL, Suspect

SHARDS = ("dataset.json", "train.csv", "train.npy", "val.csv", "test.csv")


def photos_of(project):
    """Return split and class of each photo of the store."""
    found = {}
    for name in ("train", "val", "test"):
        text = project.read(f"data/prepared/{name}.csv").decode().splitlines()
        found |= {line["source"]: (name, line["class"]) for line in csv.DictReader(text)}
    return found


@pytest.mark.slow
def test_a_table_gives_the_store_of_the_folders_and_each_row_counts(project):
    before = {name: project.read(f"data/prepared/{name}") for name in SHARDS}
    classes = {name: label for name, (_, label) in photos_of(project).items()}
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
    # Without a column of splits they are drawn again, so a split may change too.
    found = {name: label for name, (_, label) in photos_of(project).items()}
    assert found == {**classes, changed: "bee"}


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_repro_uses_exactly_the_decisions_of_a_review(project):
    before = photos_of(project)
    first, second = "photos/train/ant/001.png", "photos/train/bee/002.png"
    suspects = [Suspect(name, "train", "", "crab", LABEL, 0.9, "") for name in (first, second)]
    write_suspects(project.folder / "plots" / "audit.csv", suspects)
    command = ("-m", "fieldguide.cli", "review", "--port", "0")
    review = project.start("env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, *command)
    try:
        lines = iter(review.stdout.readline, "")
        url = next(found[1] for line in lines if (found := re.search(r"(http://\S+)", line)))
        items = ask(f"{url}/api/queue?count=2")["items"]
        # What the command prints.
        project.edit("params.yaml", "labels: none", "labels: data/labels/labels.csv")
        project.git("add", "params.yaml", "data/labels/labels.csv")
        project.git("commit", "-m", "Label table")
        for item, label in zip(items, ("crab", ""), strict=True):
            decision = {"id": item["id"], "label": label, "seen": item["seen"]}
            ask(f"{url}/api/decide", {"decisions": [decision]})
    finally:
        review.kill()
        review.communicate()
    changed = re.findall(
        r"^\+(?!\+)(.*)", project.git("diff", "--unified=0", "data/labels"), re.MULTILINE
    )
    (split, _), (other, _) = before[first], before.pop(second)
    assert [line.rpartition(",")[0] for line in changed] == [
        f"{first},crab,{split},test",
        f"{second},,{other},test",
    ]
    project.dvc("repro", "prepare")
    assert photos_of(project) == {**before, first: (split, "crab")}
