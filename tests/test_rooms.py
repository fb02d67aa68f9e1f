"""The rooms of src/fieldguide: who may import whom (docs/design.md), and no circle of imports."""

from graphlib import TopologicalSorter

import pytest
from imports import PACKAGE, imported_files

ALLOWED = {
    # What stages depend on.
    "core": set(),
    "prepare": {"core"},
    "network": {"core"},
    "training": {"core", "network"},
    "evaluation": {"core", "network"},
    "figures": {"core", "network", "evaluation"},
    # Tools: no stage depends on them.
    "results": {"core", "evaluation"},
    "pages": {"core", "figures"},
    "audit": {"core", "prepare", "network", "pages"},
    "gate": {"core", "evaluation", "results", "pages"},
    "report": {"core", "evaluation", "figures", "results", "pages"},
    "verify": {"core", "results"},
    "remotes": {"core", "results"},
    "registry": {"core", "results", "pages", "remotes"},
    "inference": {"core", "prepare", "network", "figures", "results"},
    "sweeps": {"core", "prepare", "figures", "results", "pages"},
    "review": {"core", "prepare", "audit", "inference", "results"},
}


def room_of(file):
    return file.relative_to(PACKAGE).parts[0]


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert folders == {*ALLOWED, "commands"}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    found = {
        (file.name, other)
        for file in (PACKAGE / room).rglob("*.py")
        for other in map(room_of, imported_files(file))
        if other not in {room, "__init__.py", *ALLOWED[room]}  # it imports nothing by itself
    }
    assert found == set()


def test_arrows_point_down_only():
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order[0] == "core"


def test_no_circle_of_imports():
    graph = {file: imported_files(file) - {file} for file in PACKAGE.rglob("*.py")}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
