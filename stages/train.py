"""Train the classifier, or resume an interrupted training after its last finished epoch.

Reads   data/prepared/ (train and val), models/weights/<model.weights>
Writes  models/classifier/, metrics/train/metrics.json, plots/curves.csv, metrics/model_summary.txt,
        metrics/environment.json
Params  compute, model, train
"""

from pathlib import Path

from fieldguide.core import compute, stage
from fieldguide.core.params import Params


def main(params: Params) -> dict[str, float | str]:
    """Train on the prepared store; several processes each run this script."""
    portable = compute.set_up(params.compute, params.model)
    from fieldguide.core.launch import start_processes
    from fieldguide.core.store import Store
    from fieldguide.training.loop import train
    from fieldguide.training.outputs import Outputs

    outputs = Outputs(
        bundle=Path("models/classifier"),
        metrics=Path("metrics/train"),
        curves=Path("plots/curves.csv"),
        summary=Path("metrics/model_summary.txt"),
        environment=Path("metrics/environment.json"),
    )
    start_processes(params.train)
    return train(
        params.train,
        params.model,
        store=Store(Path("data/prepared")),
        outputs=outputs,
        portable=portable,
        auto=params.auto_values,
    )


if __name__ == "__main__":
    stage.run(main)
