"""What `compute.portable` costs: images per second of CPU time in training, with and without it.

    python benchmarks/portable_cost.py

Each measurement is a process of its own; the ways take turns, and the table has medians. A batch
of noise is trained on: forward, loss, backward and step of params.yaml's CNN and a network of timm.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from contender import ROOT, environment
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

REPEATS = 5
THREADS = 2
STEPS = {32: 24, 64: 10, 224: 2}  # measured steps by pixels, after one that warms up
NETWORKS = ("cnn", "tf_efficientnet_lite0")
WAYS = ("portable", "not portable")


def main() -> None:
    """Measure all networks and sizes in turn."""
    if len(sys.argv) > 1:
        print(measure(*json.loads(sys.argv[1])))
        return
    works = [(name, size) for name in NETWORKS for size in STEPS]
    rates: dict[tuple[str, int, str], list[float]] = {}
    for repeat in tqdm(range(REPEATS), unit=" repeats", disable=None):
        for name, size in works:
            for way in WAYS if repeat % 2 else reversed(WAYS):
                command = [sys.executable, __file__, json.dumps([name, size, way == WAYS[0]])]
                done = subprocess.run(command, env=environment(), capture_output=True, check=True)
                rates.setdefault((name, size, way), []).append(float(done.stdout.split()[-1]))
    table = Table(
        "network", "pixels", *(f"{way}, images/s" for way in WAYS), "ratio", box=box.MARKDOWN
    )
    for name, size in works:
        values = [rates[name, size, way] for way in WAYS]
        ratio = statistics.median(a / b for a, b in zip(*values, strict=True))
        medians = [f"{statistics.median(one):.3g}" for one in values]
        table.add_row(name, str(size), *medians, f"{ratio:.2f}")
    Console(highlight=False, width=100).print(table)


def measure(name: str, size: int, portable: bool) -> float:  # noqa: FBT001 - of JSON
    """Return the images per second of CPU time in this process."""
    from fieldguide.core import compute
    from fieldguide.core.params import ComputeParams, load_params

    params = load_params(ROOT / "params.yaml")
    changed = {"name": name, "weights": "none", "pooling": "average"}
    model = params.model.model_copy(update=changed)
    compute.set_up(ComputeParams(portable=portable, threads=THREADS), model)
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if name == "cnn":
        from fieldguide.network.cnn import CNN

        net: torch.nn.Module = CNN(model.architecture, image_size=size, num_classes=10)  # type: ignore[arg-type]
    else:
        import timm

        net = timm.create_model(name, num_classes=10)
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    photos = params.train.batch_size if size < 224 else 16  # noqa: PLR2004
    images = torch.rand(photos, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(photos) % 10
    start = 0.0
    for step in range(STEPS[size] + 1):
        if step == 1:  # the first one warms up
            start = time.process_time()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return STEPS[size] * photos / (time.process_time() - start)


if __name__ == "__main__":
    main()
