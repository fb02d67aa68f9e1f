"""Writes and reads the files of a small project."""

import csv
from pathlib import Path

import yaml

from fieldguide.audit.audit import write_suspects
from fieldguide.audit.suspect import Suspect
from fieldguide.core.params import load_params
from fieldguide.core.store import Store
from fieldguide.prepare.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path("data/labels/labels.csv")


def write_params(**data):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["data"] |= {"archive": "data/photos", "image_size": 16, **data}
    raw["model"] |= {"conv_layers": 2}
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def write_audit(rows):
    """Write (file, split, class, suggested class) of each suspect, and its copy if it has one."""
    suspects = [Suspect(*row[:4], "label", 0.9, "odd one", *row[4:]) for row in rows]
    write_suspects(Path("plots/audit.csv"), suspects)


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


def rows_of_table():
    """Rows of the label table by file."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
