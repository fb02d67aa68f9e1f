"""What `train.accelerator: auto` takes on a machine with a GPU, and what it says."""

import torch

from fieldguide.training.device import choose_device


def test_auto_says_what_it_takes_and_what_that_means_for_the_bytes(
    monkeypatch, capsys, tiny_params
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # the tests' machines have none
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    auto = tiny_params(accelerator="auto").train
    assert choose_device(auto, portable=True).type == "cpu"
    assert capsys.readouterr().out == (
        "Trains on the CPU, for the same bytes on every machine; faster on this machine's GPU: "
        "-S compute.portable=false\n"
    )
    assert choose_device(auto, portable=False).type == "cuda"
    assert "another kind of GPU, or a CPU, would give other bytes" in capsys.readouterr().out
    cpu = auto.model_copy(update={"accelerator": "cpu"})
    assert choose_device(cpu, portable=False).type == "cpu"
    assert capsys.readouterr().out == ""
