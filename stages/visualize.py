"""Draw what the classifier has learned, what it responds to and what it gets wrong.

Reads   models/classifier/, data/prepared/ (test, and one photo of train), metrics/predictions.csv,
        plots/curves.csv
Writes  plots/figures/
Params  compute, visualize
"""

from pathlib import Path

from fieldguide.core import compute, stage
from fieldguide.core.params import Params


def main(params: Params) -> None:
    """Draw every figure."""
    compute.set_up(params.compute)
    from fieldguide.core.store import Store
    from fieldguide.evaluation.predictions import read_predictions
    from fieldguide.figures.draw import draw_all
    from fieldguide.network.bundle import load_bundle

    draw_all(
        load_bundle(Path("models/classifier")),
        Store(Path("data/prepared")),
        predictions=read_predictions(Path("metrics/predictions.csv")),
        curves=Path("plots/curves.csv"),
        params=params.visualize,
        folder=Path("plots/figures"),
    )


if __name__ == "__main__":
    stage.run(main)
