"""Test the classifier once on photos that nothing before has used.

Reads   models/classifier/, data/prepared/ (test)
Writes  metrics/test.json, metrics/predictions.csv, plots/confusion.csv, plots/reliability.csv,
        plots/per_class.csv
Params  evaluate
"""

from pathlib import Path

from fieldguide.core import stage
from fieldguide.core.params import Params
from fieldguide.core.store import Store
from fieldguide.evaluation.evaluate import Outputs, evaluate_bundle
from fieldguide.network.bundle import load_bundle

OUTPUTS = Outputs(
    metrics=Path("metrics/test.json"),
    predictions=Path("metrics/predictions.csv"),
    confusion=Path("plots/confusion.csv"),
    reliability=Path("plots/reliability.csv"),
    per_class=Path("plots/per_class.csv"),
)


def main(params: Params) -> None:
    """Evaluate the saved classifier on the test split."""
    bundle = load_bundle(Path("models/classifier"))
    evaluate_bundle(bundle, Store(Path("data/prepared")), params.evaluate, outputs=OUTPUTS)


if __name__ == "__main__":
    stage.run(main)
