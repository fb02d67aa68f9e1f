from pathlib import Path

from fieldguide.training.trial import VARIABLE, Channel


def test_without_the_variable_a_training_is_not_a_trial(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Channel.from_environment() is None
    monkeypatch.setenv(VARIABLE, "")
    assert Channel.from_environment() is None
    monkeypatch.setenv(VARIABLE, "somewhere")
    assert Channel.from_environment() == Channel(Path("somewhere"))


def test_reports_can_be_read_while_they_are_written(tmp_path):
    channel = Channel(tmp_path)
    assert channel.reports() == {}
    channel.report(1, {"val/acc": 0.25})
    channel.report(2, {"val/acc": 0.5})
    with (tmp_path / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "val/a')  # incomplete: being written, or cut off by a kill
    assert channel.reports() == {1: {"val/acc": 0.25}, 2: {"val/acc": 0.5}}


def test_a_trial_stops_or_continues_as_the_sweep_answers(tmp_path):
    channel = Channel(tmp_path / "new")
    channel.open([2, 6])
    assert channel.may_go_on(1)  # not a rung
    channel.answer(2, go_on=False)
    channel.answer(6, go_on=True)
    assert not channel.may_go_on(2)
    assert channel.may_go_on(6)


def test_a_trial_continues_without_its_folder(tmp_path):
    assert Channel(tmp_path / "gone").may_go_on(2)
