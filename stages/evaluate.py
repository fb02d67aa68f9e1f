"""Test the classifier once, on photos that no earlier stage has used.

Reads   models/classifier/, data/prepared/ (test)
Writes  metrics/test.json, metrics/trust.json, metrics/predictions.csv, plots/confusion.csv,
        plots/reliability.csv, plots/risk_coverage.csv, plots/per_class.csv
Params  compute, evaluate
"""

from pathlib import Path

from fieldguide.core import compute, stage
from fieldguide.core.params import Params


def main(params: Params) -> None:
    """Evaluate the saved classifier on the test split."""
    portable = compute.set_up(params.compute)
    from fieldguide.core.store import Store
    from fieldguide.evaluation.evaluate import evaluate_bundle
    from fieldguide.network.bundle import load_bundle

    evaluate_bundle(
        load_bundle(Path("models/classifier")),
        Store(Path("data/prepared")),
        params.evaluate,
        metrics=Path("metrics"),
        plots=Path("plots"),
        portable=portable,
    )


if __name__ == "__main__":
    stage.run(main)
