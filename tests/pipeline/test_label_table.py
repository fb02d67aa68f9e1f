"""DVC sees a change of a label table, and only the changed row is another one in the store."""

import csv
import json
import re
import sys
import urllib.request
import zipfile

import pytest
from project import ROOT

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


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_repro_uses_exactly_the_decisions_of_a_review(project):
    classes = labels_of(project)
    first, second = "photos/train/ant/001.png", "photos/train/bee/002.png"
    audit = "file,split,class,suggested class,kind,score,detail\n"
    audit += "".join(f"{name},train,,crab,label,0.9,\n" for name in (first, second))
    (project.folder / "plots" / "audit.csv").write_text(audit, encoding="utf-8")
    command = ("-m", "fieldguide.cli", "review", "--port", "0")
    review = project.start("env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, *command)
    try:
        lines = iter(review.stdout.readline, "")
        url = next(found[1] for line in lines if (found := re.search(r"(http://\S+)", line)))
        items = ask(f"{url}/api/queue?count=2")["items"]
        project.git("add", "data/labels")
        for item, label in zip(items, ("crab", ""), strict=True):
            ask(f"{url}/api/decide", {"id": item["id"], "label": label, "seen": item["seen"]})
    finally:
        review.kill()
        review.communicate()
    changed = re.findall(
        r"^\+(?!\+)(.*)", project.git("diff", "--unified=0", "data/labels"), re.MULTILINE
    )
    who = "train,test,20"
    assert [line[: line.index(who) + len(who)] for line in changed] == [
        f"{first},crab,{who}",
        f"{second},,{who}",
    ]
    project.edit("params.yaml", "labels: none", "labels: data/labels/labels.csv")
    project.dvc("repro", "prepare")
    expected = {name: label for name, label in classes.items() if name != second}
    assert labels_of(project) == {**expected, first: "crab"}
