"""Several processes on one or two machines train what one trains; if one dies, all end."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from curves import curves_of
from forked import ROOT, Started, end, files_in, wait_for_epoch
from safetensors.torch import load_file

from fieldguide.core.store import Store
from fieldguide.network.batches import in_order
from fieldguide.network.bundle import load_bundle
from fieldguide.prepare.prepare import prepare

pytestmark = pytest.mark.slow

LONG = {"epochs": 20, "patience": 20}
EQUAL = {"batch_norm": False, "dropout": 0.0}
WITHIN = 60  # seconds for all to end after one has died


@pytest.fixture(scope="module")
def uneven_store(make_photos, make_params, pack, tmp_path_factory):
    """153 photos in three steps, 15 to validate: two or four processes have unequal slices."""
    folder = tmp_path_factory.mktemp("uneven")
    files = {
        **make_photos("train", each=51, seed=0),
        **make_photos("val", each=5, seed=1),
        **make_photos("test", each=3, seed=2),
    }
    changes = {"archive": str(pack(folder / "photos.zip", files)), "image_size": 16}
    prepare(make_params(data=changes, model={"conv_layers": 2}).data, folder / "prepared")
    return Store(folder / "prepared")


@pytest.fixture(scope="module")
def machine(uneven_store, tiny_params, tmp_path_factory):
    """Makes a folder that stands for a clone on another machine, with all that training reads."""

    def make(name, **changes):
        folder = tmp_path_factory.mktemp(name) / "clone"
        folder.mkdir()
        for code in ("src", "stages"):
            (folder / code).symlink_to(ROOT / code)
        (folder / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
        shutil.copytree(uneven_store.folder, folder / "data" / "prepared")
        # With dropout, augmentation and batch norm, as by default.
        params = tiny_params(**{"learning_rate": 2e-3, "batch_size": 64, **changes})
        (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump()), encoding="utf-8")
        return folder

    return make


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(machines, devices):
    """Start the processes of a training with the variables that torchrun sets, by rank."""
    world, port = len(machines) * devices, str(free_port())
    return [
        Started(
            "stages/train.py",
            cwd=folder,
            printed=folder.parent / f"printed-{local}.txt",
            OMP_NUM_THREADS="1",
            TORCHELASTIC_RUN_ID="none",
            RANK=str(node * devices + local),
            LOCAL_RANK=str(local),
            WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for node, folder in enumerate(machines)
        for local in range(devices)
    ]


def start_by_hand(machines, *, address="127.0.0.1", networks=None, **variables):
    """Start the stage once on each machine, as docs/distributed.md says."""
    port = str(free_port())
    return [
        Started(
            "stages/train.py",
            cwd=folder,
            printed=folder.parent / "printed.txt",
            network=networks and networks[node],
            OMP_NUM_THREADS="1",
            MASTER_ADDR=address,
            MASTER_PORT=port,
            NODE_RANK=str(node),
            **variables,
        )
        for node, folder in enumerate(machines)
    ]


def finish(processes):
    """Wait for all processes; return the output of the first."""
    ended = [end(process) for process in processes]
    assert [status for status, _ in ended] == [0] * len(processes), ended
    return ended[0][1]


@pytest.fixture(scope="module")
def trained(machine):
    """Folders after the same training by one, two and four processes, by this number.

    Without batch norm and dropout, which are each process's own.
    """
    folders = {}
    for devices in (1, 2, 4):
        changes = {"devices": devices, "batch_size": 64 // devices, "model": EQUAL}
        folders[devices] = machine(f"by-{devices}", epochs=3, patience=3, **changes)
        finish(start([folders[devices]], devices))
    return folders


def weights(folder):
    return load_file(folder / "models/classifier/model.safetensors")


def weights_file(folder):
    return (folder / "models/classifier/model.safetensors").read_bytes()


def curves(folder):
    return curves_of((folder / "plots/curves.csv").read_bytes())


@pytest.mark.parametrize("devices", [2, 4])
def test_several_processes_train_what_one_does_with_all_their_photos(trained, devices):
    """Up to rounding: the largest difference seen was 4e-7."""
    one, several = weights(trained[1]), weights(trained[devices])
    assert one.keys() == several.keys()
    for name, expected in one.items():
        torch.testing.assert_close(several[name], expected, rtol=1e-5, atol=1e-5, msg=name)
    expected = curves(trained[1])
    for name, values in curves(trained[devices]).items():
        assert values == pytest.approx(expected[name], abs=1e-5)


def test_several_processes_write_what_one_does(trained):
    written = {
        devices: {name for name in files_in(folder) if not name.startswith(".fieldguide/")}
        for devices, folder in trained.items()
    }
    assert written[1] == written[2] == written[4]
    for folder in trained.values():
        seconds = json.loads((folder / "metrics/timing.json").read_text(encoding="utf-8"))
        assert seconds["train"]["epochs_run"] == 3


def test_batch_norm_validates_and_saves_the_statistics_of_the_first_process(machine):
    changes = {"epochs": 6, "patience": 6, "ema_decay": 0.5, "target_precision": 0.8}
    changes["model"] = {"whitening": False}  # learns the photos in six epochs
    folder = machine("norm", **changes, devices=2, batch_size=32)
    finish(start([folder], 2))
    bundle = load_bundle(folder / "models/classifier")
    split = Store(folder / "data/prepared").split("val")
    ((images, labels),) = in_order(split, bundle.preprocessing, torch.device("cpu"))
    with torch.no_grad():
        scores = bundle.net(images)
        loss = float(torch.nn.functional.cross_entropy(scores, labels))
    found = curves(folder)
    best = found["val_acc"].index(max(found["val_acc"]))
    assert loss == pytest.approx(found["val_loss"][best], rel=1e-5)
    # It is calibrated on the photos of both: 0.8^15 is 3.5 %, and 0.8^8 is 17 %.
    assert len(labels) == 15
    assert bundle.calibration.min_confidence is not None


def test_ddp_of_one_process_changes_nothing(trained, machine):
    folder = machine("ddp", epochs=3, patience=3, strategy="ddp", model=EQUAL)
    finish(start([folder], 1))
    assert weights_file(folder) == weights_file(trained[1])


def test_ddp_of_one_process_opens_a_connection(machine):
    """Without DDP, the network interface does not matter."""
    for strategy, status in (("ddp", 1), ("auto", 0)):
        folder = machine("interface", epochs=1, strategy=strategy)
        (process,) = start_by_hand([folder], GLOO_SOCKET_IFNAME="nowhere")
        found, output = end(process)
        assert found == status, output


def test_torchrun_starts_two_processes(trained, machine):
    folder = machine("torchrun", epochs=3, patience=3, devices=2, batch_size=32, model=EQUAL)
    command = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), "stages/train.py"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Kept epoch") == 1
    assert weights_file(folder) == weights_file(trained[2])


@pytest.fixture(scope="module")
def long_training(machine):
    """Folder of a training by two processes without interruption."""
    folder = machine("long", **LONG, devices=2, batch_size=32)
    finish(start([folder], 2))
    return folder


@pytest.mark.parametrize("victim", ["second", "stage"])
def test_the_stage_and_the_processes_that_it_starts_end_together(victim, long_training, machine):
    folder = machine(f"dies-{victim}", **LONG, devices=2, batch_size=32)
    stage = Started("stages/train.py", cwd=folder, OMP_NUM_THREADS="1")
    wait_for_epoch(stage, folder / "plots/curves.csv", 2)
    children = psutil.Process(stage.pid).children()
    ranks = {child.environ()["RANK"]: child for child in children}
    assert set(ranks) == {"0", "1"}
    killed = time.monotonic()
    (stage.process if victim == "stage" else ranks["1"]).kill()
    status, output = end(stage)
    psutil.wait_procs(children, timeout=WITHIN)
    assert time.monotonic() - killed < WITHIN
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in output
    assert not (folder / "models/classifier").exists()
    if victim == "stage":
        assert status == -signal.SIGKILL
    else:
        assert status == 128 + signal.SIGKILL  # a sweep starts such a run again
        assert "train: process 1 was ended by SIGKILL; run it again: it goes on" in output
    assert finish(start([folder], 2)).count("Going on after epoch") == 1
    assert weights_file(folder) == weights_file(long_training)
    for written in ("metrics/train", "models", "plots"):
        assert files_in(folder / written) == files_in(long_training / written)


def test_a_mistake_of_all_processes_ends_them_and_is_printed_once(machine):
    changes = {"optimizer": "sgd", "learning_rate": 10.0}
    changes["model"] = {"batch_norm": False, "whitening": False}
    folder = machine("nan", epochs=9, devices=2, batch_size=32, **changes)
    status, output = end(Started("stages/train.py", cwd=folder, OMP_NUM_THREADS="1"))
    assert status == 1
    assert re.search(r"^train: (train|val)/loss became (nan|inf)", output, re.MULTILINE)
    assert output.count("/loss became") == 1
    assert "Traceback" not in output


def test_blocks_that_are_frozen_in_some_epochs_cause_no_warning(trained, machine):
    model = {**EQUAL, "weights": "old", "finetune": "gradual"}
    folder = machine("gradual", epochs=3, patience=3, devices=2, batch_size=32, model=model)
    shutil.copytree(trained[1] / "models/classifier", folder / "models/weights/old")
    output = finish([Started("stages/train.py", cwd=folder, OMP_NUM_THREADS="1")])
    assert output.count("Kept epoch") == 1
    assert "find_unused_parameters" not in output


@pytest.fixture(scope="module")
def two_networks():
    """Two network namespaces that are connected like two machines."""
    names = [f"fieldguide-{os.getpid()}-{node}" for node in (0, 1)]
    links = [f"fg{os.getpid()}{end}" for end in "ab"]

    def ip(*arguments):
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        except (OSError, subprocess.CalledProcessError) as err:
            reason = f"no network namespaces here: {getattr(err, 'stderr', err)}"
            if os.environ.get("CI") and os.geteuid() == 0:
                pytest.fail(reason)
            pytest.skip(reason)
        for node, (name, link) in enumerate(zip(names, links, strict=True)):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "link", "set", link, "name", "eth0")
            ip("-n", name, "addr", "add", f"10.77.0.{node + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_two_hosts_train_together_and_end_together(two_networks, long_training, machine):
    machines = [machine(f"host-{node}", **LONG, num_nodes=2, batch_size=32) for node in (0, 1)]
    before = files_in(machines[1])
    options = {
        "address": "10.77.0.1",
        "networks": two_networks,
        "GLOO_SOCKET_IFNAME": "eth0",  # here the name of a host leads to its loopback
    }
    stages = start_by_hand(machines, **options)
    wait_for_epoch(stages[0], machines[0] / "plots/curves.csv", 3)
    stages[1].process.kill()
    killed = time.monotonic()
    status, output = end(stages[0])
    assert time.monotonic() - killed < WITHIN
    assert status == 1, output
    assert "train: process 0 of 2 has lost another process" in output
    assert "Traceback" not in output
    assert not (machines[0] / "models/classifier").exists()
    output = finish(start_by_hand(machines, **options))
    assert output.count("Going on after epoch") == 1
    assert weights_file(machines[0]) == weights_file(long_training)
    assert files_in(machines[1]) == before, "only the first machine may write"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("data/prepared/dataset.json", "bee", "bug"), "data/prepared/dataset.json"),
        (("params.yaml", "learning_rate: 0.002", "learning_rate: 0.003"), "params.yaml"),
    ],
    ids=["store", "params"],
)
def test_all_machines_must_have_the_same_files(change, named, machine):
    machines = [machine(f"other-{node}", epochs=3, num_nodes=2, batch_size=32) for node in (0, 1)]
    name, old, new = change
    text = (machines[1] / name).read_text(encoding="utf-8")
    assert old in text
    for file in (name, *(["data/prepared/train.csv"] if old == "bee" else [])):
        path = machines[1] / file
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    for process in start(machines, 1):
        status, output = end(process)
        assert status == 1
        assert f"train: process 1 has another {named} than process 0; every machine" in output
        assert "Traceback" not in output
    assert files_in(machines[0] / "metrics") == {}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "train.num_nodes: 2 needs MASTER_ADDR, MASTER_PORT and NODE_RANK (found none; "),
        (
            {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": "2"},
            "NODE_RANK (found 2; allowed: 0 to 1); docs/distributed.md shows",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"},
            "WORLD_SIZE: found 1; allowed: 2, which is train.devices: 1 × train.num_nodes: 2",
        ),
    ],
    ids=["missing", "range", "torchrun"],
)
def test_the_launcher_must_fit_the_params(variables, message, machine):
    folder = machine("alone", epochs=3, num_nodes=2)
    status, output = end(Started("stages/train.py", cwd=folder, **variables))
    assert status == 1
    assert message in output
    assert "Traceback" not in output
