"""Train the classifier; after an interruption, go on from the last finished epoch.

Reads   data/prepared/ (train and val)
Writes  models/classifier/, metrics/train/, metrics/model_summary.txt, metrics/environment.json
Params  model, train
"""

from pathlib import Path

from fieldguide import stage
from fieldguide.data.store import Store
from fieldguide.params import Params
from fieldguide.training.fit import Outputs, train
from fieldguide.trial import Channel

OUTPUTS = Outputs(
    bundle=Path("models/classifier"),
    metrics=Path("metrics/train"),
    summary=Path("metrics/model_summary.txt"),
    environment=Path("metrics/environment.json"),
)


def main(params: Params) -> dict[str, float]:
    """Fit on the prepared store."""
    store = Store(Path("data/prepared"))
    channel = Channel.from_environment()
    return train(params.train, params.model, store=store, outputs=OUTPUTS, channel=channel)


if __name__ == "__main__":
    stage.run(main)
