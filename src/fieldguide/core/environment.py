"""Describe what a result was made with: Python, libraries, processor, threads, lock file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

# Those that compute a training, and others.
NUMERIC = ("torch", "torchvision", "numpy", "timm")
LIBRARIES = [
    *NUMERIC,
    *("dvc", "dvclive", "pillow", "scikit-learn", "scipy", "safetensors", "matplotlib", "pydantic"),
]


def describe_environment(
    device: torch.device, lock: Path = Path("requirements.lock")
) -> dict[str, Any]:
    """Describe this process without paths or names; the same in every run on one machine."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def numeric_environment(environment: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a description that a training's numbers depend on."""
    libraries = {name: environment["libraries"][name] for name in NUMERIC}
    return {**environment, "libraries": libraries, "lock_sha256": None}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{device.type}: {line.partition(':')[2].strip()}"
    except OSError:
        pass  # not Linux
    return f"{device.type}: {platform.processor() or platform.machine()}"
