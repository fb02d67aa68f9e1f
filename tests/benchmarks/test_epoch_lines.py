"""The end of each epoch is read from the lines that a training prints."""

from contextlib import redirect_stdout
from pathlib import Path

from epoch_lines import EpochLines

from fieldguide.core.params import load_params
from fieldguide.training.record import Record

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("train/loss", "train/acc", "val/loss", "val/acc", "learning_rate")


def test_each_epoch_is_told_with_its_validation_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml").train
    record = Record(tmp_path / "metrics", tmp_path / "curves.csv", params, writes=True)
    told = []
    with redirect_stdout(EpochLines(lambda *epoch: told.append(epoch))):
        for accuracy in (0.25, 0.512345):
            values = (2.1, 0.2, 1.9, accuracy, 1e-3)
            record.add(dict(zip(NAMES, values, strict=True)), seconds=100.0)
    record.finish({})
    assert told == [(1, 0.25), (2, 0.5123)]
    assert len(capsys.readouterr().out.splitlines()) == 3
