"""Draw what the classifier has learned, sees and gets wrong.

Reads   models/classifier/, data/prepared/ (test), metrics/predictions.csv, metrics/train/plots/,
        plots/reliability.csv
Writes  plots/figures/
Params  visualize
"""

from pathlib import Path

from fieldguide import stage
from fieldguide.data.store import Store
from fieldguide.evaluation.predictions import read_predictions
from fieldguide.figures.draw import Inputs, draw_all
from fieldguide.models.bundle import load_bundle
from fieldguide.params import Params


def main(params: Params) -> None:
    """Draw every figure."""
    inputs = Inputs(
        bundle=load_bundle(Path("models/classifier")),
        test=Store(Path("data/prepared")).split("test"),
        predictions=read_predictions(Path("metrics/predictions.csv")),
        curves=Path("metrics/train/plots/metrics"),
        reliability=Path("plots/reliability.csv"),
    )
    draw_all(inputs, params.visualize, Path("plots/figures"))


if __name__ == "__main__":
    stage.run(main)
