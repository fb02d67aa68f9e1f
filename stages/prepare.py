"""Decode the labelled photos once and split them.

Reads   data.archive
Writes  data/prepared/, metrics/prepare.json, plots/classes.csv
Params  data

On the bundled sample: 4,000 train, 1,000 val and 1,000 test photos of 10 classes, none left out.
"""

from pathlib import Path

from fieldguide import stage
from fieldguide.data.archives import check_deps
from fieldguide.data.prepare import prepare
from fieldguide.data.report import report
from fieldguide.params import Params


def main(params: Params) -> None:
    """Prepare the store and report its counts."""
    check_deps(params.data.archive)
    prepared = prepare(params.data, Path("data/prepared"))
    report(prepared, metrics=Path("metrics/prepare.json"), plot=Path("plots/classes.csv"))


if __name__ == "__main__":
    stage.run(main)
