"""Test the classifier once on photos that nothing before has used.

Reads   models/classifier/, data/prepared/ (test)
Writes  metrics/test.json, metrics/per_class.json, metrics/predictions.csv, plots/confusion.csv,
        plots/reliability.csv, plots/per_class.csv
Params  evaluate
"""

from pathlib import Path

from fieldguide import stage
from fieldguide.data.store import Store
from fieldguide.evaluation.report import Outputs, evaluate_bundle
from fieldguide.models.bundle import load_bundle
from fieldguide.params import Params

OUTPUTS = Outputs(
    metrics=Path("metrics/test.json"),
    per_class_metrics=Path("metrics/per_class.json"),
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
