"""Decode the labelled photos once and split them.

Reads   data.archive, data.labels
Writes  data/prepared/, metrics/prepare.json, plots/classes.csv, plots/left_out.csv
Params  data

On the bundled sample: 3,999 train, 1,000 val and 1,000 test photos of 10 classes; one photo that
looks like a test photo is left out.
"""

from pathlib import Path

from fieldguide.core import stage
from fieldguide.core.params import Params
from fieldguide.prepare.archives import check_deps
from fieldguide.prepare.counts import write_counts
from fieldguide.prepare.prepare import prepare


def main(params: Params) -> None:
    """Prepare the store, and report its counts."""
    check_deps(params.data)
    prepared = prepare(params.data, Path("data/prepared"))
    write_counts(
        prepared,
        metrics=Path("metrics/prepare.json"),
        classes=Path("plots/classes.csv"),
        left_out=Path("plots/left_out.csv"),
    )


if __name__ == "__main__":
    stage.run(main)
