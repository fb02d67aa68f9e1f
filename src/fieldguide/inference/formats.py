"""Write the answers of `fieldguide predict` as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fieldguide.core.errors import printable
from fieldguide.inference.answers import UNSURE, Row
from fieldguide.inference.classifier import Classifier

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_MAX_WIDTH = 60  # characters; columns are not aligned below a longer name of a photo
_ROW_GROUP = 10_000  # rows that Parquet keeps in memory


def columns(classifier: Classifier, top: int, *, with_answer: bool) -> list[str]:
    """Return the columns of CSV and Parquet: photo, (answer,) class_1, probability_1, ..., error.

    Args:
        classifier: may have fewer classes than are asked for.
        top: number of classes to name.
        with_answer: the rows have an `answer`, which may be UNSURE.
    """
    ranks = range(1, min(top, len(classifier.classes)) + 1)
    classes = [f"{name}_{k}" for k in ranks for name in ("class", "probability")]
    return ["photo", *["answer"] * with_answer, *classes, "error"]


class Terminal:
    """Prints text without control characters, which a name may have and the terminal would obey."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Print a text; return its length."""
        return self._out.write(printable(text))


def print_table(rows: Iterable[Row], photos: list[Path]) -> None:
    """Print aligned columns; a photo that cannot be read is named on stderr.

    Args:
        rows: of `classify`.
        photos: all of them; the longest name sets the width of the first column.
    """
    width = min(_MAX_WIDTH, max((len(str(photo)) for photo in photos), default=0))
    for row in rows:
        if "error" in row:
            print(printable(row["error"]), file=sys.stderr, flush=True)
            continue
        cells = [f"{one['class']} {one['probability']:.1%}" for one in row["classes"]]
        if row.get("answer") == UNSURE:
            cells = [UNSURE, *cells]
        print(printable("   ".join([f"{row['photo']:<{width}}", *cells])), flush=True)


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """Write an array with one object per photo (one or more): its classes or its error."""
    separator = "["
    for row in rows:
        print(f"{separator}\n  {json.dumps(row)}", end="", file=out, flush=True)
        separator = ","
    print("\n]", file=out)


def write_csv(rows: Iterable[Row], header: list[str], out: SupportsWrite[str]) -> None:
    """Write one line per photo.

    Args:
        rows: of `classify`.
        header: of `columns`.
        out: receives the text.
    """
    # Quotes for all text: by default, Python 3.11 writes a carriage return in a name without them.
    writer = csv.DictWriter(out, header, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(map(_cells, rows))


def write_parquet(rows: Iterable[Row], header: list[str], path: Path) -> None:
    """Write one row per photo; a cell without a value is null. Arguments as in `write_csv`."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415

    types = {"class": pa.string(), "probability": pa.float64()}
    schema = pa.schema([(name, types.get(name.partition("_")[0], pa.string())) for name in header])
    cells = map(_cells, rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(cells, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _cells(row: Row) -> dict[str, str | float]:
    """Return the cells that have a value, by column."""
    cells: dict[str, str | float] = {
        name: row[name] for name in ("photo", "answer", "error") if name in row
    }
    for k, one in enumerate(row.get("classes", ()), start=1):
        cells[f"class_{k}"], cells[f"probability_{k}"] = one["class"], one["probability"]
    return cells
