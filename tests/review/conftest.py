"""A small project on disk, with an audit, and sessions on its label table."""

import contextlib
import csv
import shutil
from pathlib import Path

import pytest
import yaml

from fieldguide.core.params import load_params
from fieldguide.core.store import Store
from fieldguide.prepare.archives import open_archives
from fieldguide.prepare.prepare import prepare
from fieldguide.review.label_file import LabelFile
from fieldguide.review.label_table import find_table
from fieldguide.review.project import ReviewProject
from fieldguide.review.queues import audit_queue
from fieldguide.review.session import Session

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path("data/labels/labels.csv")
AUDIT_COLUMNS = ("file", "split", "class", "suggested class", "kind", "score", "detail")


def write_params(**data):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["data"] |= {"archive": "data/photos", "image_size": 16, **data}
    raw["model"] |= {"conv_layers": 2}
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def write_audit(rows):
    """Write (file, split, class, suggested class) of each suspect."""
    with Path("plots/audit.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [AUDIT_COLUMNS, *((*row, "label", "0.9", "odd one") for row in rows)]
        )


def run_prepare():
    """Prepare with params.yaml; return split and class of each photo."""
    prepare(load_params().data, Path("data/prepared"))
    store = Store(Path("data/prepared"))
    found = {}
    for name in ("train", "val", "test"):
        split = store.split(name)
        labels = [store.classes[k] for k in split.labels]
        found |= {
            source: (name, label) for source, label in zip(split.sources, labels, strict=True)
        }
    return found


@pytest.fixture
def folder(tmp_path, make_photos, pack, monkeypatch):
    """A project of 3 classes, each with 20 training and 5 test photos; the working folder."""
    monkeypatch.chdir(tmp_path)
    photos = make_photos("train", each=20, seed=0) | make_photos("val", each=5, seed=1)
    for name in ("data/labels", "plots"):
        (tmp_path / name).mkdir(parents=True)
    pack(tmp_path / "data" / "photos", photos)
    write_params()
    run_prepare()
    rows = []
    for name in photos:
        split, label, _ = name.split("/")
        other = "bee" if label == "ant" else "ant"
        rows.append((name, "test" if split == "val" else split, label, other))
    write_audit(rows)
    return tmp_path


@pytest.fixture
def start():
    """Starts a session, as the command does; several may share the table."""
    with contextlib.ExitStack() as stack:

        def go(make_queue=audit_queue, reviewer="Ann"):
            params = load_params().data
            archives = stack.enter_context(open_archives(params.archive))
            table, _ = find_table(params, archives)
            labels = LabelFile(table, Path(".fieldguide/review/labels.lock"))
            params = params.model_copy(update={"labels": str(table)})
            project = ReviewProject(params, archives, labels, Store(Path("data/prepared")))
            skipped = Path(".fieldguide/review/skipped.json")
            return Session(project, make_queue(project), reviewer=reviewer, skipped=skipped)

        yield go
    shutil.rmtree(".fieldguide", ignore_errors=True)
