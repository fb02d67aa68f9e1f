"""A small project on disk, with an audit, and sessions on its label table."""

import contextlib
import shutil
from pathlib import Path

import pytest
from reviewed import run_prepare, write_audit, write_params

from fieldguide.core.params import load_params
from fieldguide.core.store import Store
from fieldguide.prepare.archives import open_archives
from fieldguide.review.label_table import open_project
from fieldguide.review.queues import audit_queue
from fieldguide.review.session import Session


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

        def go(make_queue=audit_queue, reviewer="Ann", folder=None):
            params = load_params().data
            archives = stack.enter_context(open_archives(params.archive))
            store = Store(Path("data/prepared"))
            project, _ = open_project(params, archives, store, folder)
            queue = make_queue(project)
            project.labels.start()
            return Session(project, queue, reviewer=reviewer)

        yield go
    shutil.rmtree(".fieldguide", ignore_errors=True)
