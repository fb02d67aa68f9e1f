"""Made-up experiments in a real Git repository, as `dvc exp run` would leave them.

`git fast-import` writes a thousand in a second.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
START = 1_760_000_000  # seconds since 1970


@dataclass
class Experiment:
    """What one trial writes."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)  # as model.activation; the changed ones
    best: dict[str, Any] | None = None  # as val_acc
    created: int = START
    seconds: float | None = 60.0
    pruned: bool = False
    curves: dict[str, list[float]] = field(default_factory=dict)  # as val/acc
    extra: dict[str, str] = field(default_factory=dict)  # path: text


def write_experiments(folder: Path, experiments: Iterable[Experiment]) -> str:
    """Make a repository with one commit and experiments of it; return that commit."""
    _git(folder, b"", "init", "--quiet", "--initial-branch=main")
    first = {"params.yaml": PARAMS.read_text(encoding="utf-8")}
    stream = io.BytesIO()
    _commit(stream, "refs/heads/main", first, created=START)
    _git(folder, stream.getvalue(), "fast-import", "--quiet")
    base = _git(folder, b"", "rev-parse", "refs/heads/main").decode().strip()
    add_experiments(folder, experiments, base)
    return base


def add_experiments(folder: Path, experiments: Iterable[Experiment], base: str) -> None:
    """Write experiments of a commit."""
    stream = io.BytesIO()
    for one in experiments:
        ref = f"refs/exps/{base[:2]}/{base[2:]}/{one.name}"
        _commit(stream, ref, _files(one), created=one.created, parent=base)
    _git(folder, stream.getvalue(), "fast-import", "--quiet")


def random_experiments(
    count: int, *, sweep: str = "space", seeds: int = 1, seed: int = 0
) -> Iterator[Experiment]:
    """Draw configurations of the original ten parameters, with scores that depend on some of them.

    Each is trained with `seeds` seeds; about one in six is pruned at its first seed.
    """
    rng = np.random.default_rng(seed)
    created = START
    for number in range(1, count + 1):
        params = {
            "model.first_layer_filters": int(rng.choice([32, 64, 128])),
            "model.filter_org": float(rng.choice([0.5, 1.0, 2.0])),
            "model.conv_layers": int(rng.integers(3, 6)),
            "model.activation": str(rng.choice(["relu", "gelu", "silu", "mish"])),
            "model.dropout": float(rng.choice([0.0, 0.2, 0.3, 0.5])),
            "model.batch_norm": bool(rng.integers(2)),
            "model.num_neurons_dense": int(rng.choice([128, 256, 512, 1024])),
            "train.batch_size": int(rng.choice([32, 64, 128])),
            "train.learning_rate": float(f"{10 ** rng.uniform(-5, -2):.3g}"),
            "train.use_augmentation": bool(rng.integers(2)),
        }
        quality = (
            0.62
            - 0.07 * (math.log10(params["train.learning_rate"]) + 3.2) ** 2
            + 0.06 * params["model.batch_norm"]
            + 0.03 * params["train.use_augmentation"]
            + 0.02 * (params["model.activation"] == "mish")
            + rng.normal(0, 0.015)
        )
        pruned = bool(quality < 0.5 and rng.random() < 0.6)
        for k in range(1 if pruned else seeds):
            final = quality + rng.normal(0, 0.01) if seeds > 1 else quality
            epochs = 3 if pruned else int(rng.integers(12, 24))
            acc = [final * (1 - math.exp(-(epoch + 1) / 4)) for epoch in range(epochs)]
            loss = [2.3 * (1 - value) for value in acc]
            seconds = epochs * float(rng.uniform(4, 6))
            created += round(seconds) + 1
            suffix = f"_s{k}" if seeds > 1 else ""
            yield Experiment(
                name=f"{sweep}-{number:04d}_lr{params['train.learning_rate']:g}{suffix}",
                params=params | ({"train.seed": k} if seeds > 1 else {}),
                best={"val_acc": max(acc), "val_loss": min(loss), "epoch": epochs},
                created=created,
                seconds=round(seconds, 1),
                pruned=pruned,
                curves={
                    "train/acc": [1.05 * value for value in acc],
                    "train/loss": [0.9 * value for value in loss],
                    "val/acc": acc,
                    "val/loss": loss,
                },
            )


def _files(one: Experiment) -> dict[str, str]:
    metrics: dict[str, Any] = {"step": 1}
    if one.best is not None:
        metrics["best"] = one.best
    if one.pruned:
        metrics["pruned"] = 1
    files = {
        "params.yaml": _params(one.params),
        "metrics/train/metrics.json": json.dumps(metrics, indent=4),
    }
    if one.seconds is not None:
        timing = {"prepare": {"seconds": 2.0}, "train": {"seconds": one.seconds}}
        files["metrics/timing.json"] = json.dumps(timing, indent=2) + "\n"
    if one.curves:
        header = ",".join(["epoch", *(name.replace("/", "_") for name in one.curves)])
        lines = [
            ",".join([str(epoch), *(f"{value:.6f}" for value in row)])
            for epoch, row in enumerate(zip(*one.curves.values(), strict=True), start=1)
        ]
        files["plots/curves.csv"] = "\n".join([header, *lines]) + "\n"
    return files | one.extra


def _params(changes: dict[str, Any]) -> str:
    """Return the project's params.yaml, with its comments, and with other values."""
    section, lines, left = "", [], dict(changes)
    for line in PARAMS.read_text(encoding="utf-8").splitlines():
        name = line.split(":")[0]
        if line and line[0].isalpha():
            section = name
        key = f"{section}.{name.strip()}"
        if key in left:
            # JSON is YAML: a text stays a text.
            lines.append(f"{name}: {json.dumps(left.pop(key))}  # changed")
        else:
            lines.append(line)
    assert not left, f"params.yaml has no {', '.join(left)}"
    return "\n".join(lines) + "\n"


def _commit(
    stream: io.BytesIO, ref: str, files: dict[str, str], *, created: int, parent: str | None = None
) -> None:
    stream.write(f"commit {ref}\ncommitter test <test@localhost> {created} +0000\n".encode())
    stream.write(b"data 0\n")
    if parent is not None:
        stream.write(f"from {parent}\n".encode())
    for path, text in files.items():
        data = text.encode()
        stream.write(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    stream.write(b"\n")


def _git(folder: Path, text: bytes, *arguments: str) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=text, capture_output=True, check=True
    )
    return done.stdout
