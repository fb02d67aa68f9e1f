"""Documents name only files of this project that exist, and the values of `auto`."""

import re
from pathlib import Path

import pytest

from fieldguide.core.recipes import FINE_TUNING, FINE_TUNING_CNN, HEAD, SCRATCH

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data/README.md"]
# A link to a file, without its anchor, and a path of code between backticks or in a command.
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PATH = re.compile(
    r"(?<![\w/.])((?:src|stages|tests|benchmarks|sweeps)/[\w./-]+\.(?:py|yaml|txt|json))"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document):
    text = document.read_text(encoding="utf-8")
    links = {name: document.parent / name for name in LINK.findall(text)}
    paths = {name: ROOT / name for name in PATH.findall(text)}
    missing = [name for name, file in (links | paths).items() if not file.exists()]
    assert missing == []


def test_the_table_of_auto_says_what_the_recipes_are():
    found = [{}, {}, {}, {}]
    for line in (ROOT / "docs/recipe.md").read_text(encoding="utf-8").splitlines():
        keys, *values = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"`train\.(\w+)`", keys)
        if len(values) == len(found) and names:
            for recipe, cell in zip(found, values, strict=True):
                recipe |= dict(zip(names, cell.strip().split(", "), strict=True))
    for recipe, table in zip((SCRATCH, FINE_TUNING, FINE_TUNING_CNN, HEAD), found, strict=True):
        numbers = {key: value if key == "crop" else float(value) for key, value in table.items()}
        assert numbers == recipe
