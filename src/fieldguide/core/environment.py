"""Describe what a result was made with: Python, libraries, processor, threads, lock file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path

import torch

NUMERIC = ("torch", "torchvision", "numpy", "timm")  # those that compute a training
LIBRARIES = [
    *("torch", "torchvision", "dvc", "dvclive", "numpy", "pillow"),
    *("scikit-learn", "scipy", "safetensors", "timm", "matplotlib", "pydantic"),
]


def numeric_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute a training."""
    libraries = {name: importlib.metadata.version(name) for name in NUMERIC}
    return {"python": platform.python_version(), **libraries}


def describe_machine(device: torch.device) -> dict[str, object]:
    """Describe what a training's rounding depends on besides versions, without names."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def describe_environment(
    device: torch.device, lock: Path = Path("requirements.lock")
) -> dict[str, object]:
    """Describe this process without paths or names; the same in every run on one machine."""
    return {
        "python": platform.python_version(),
        **describe_machine(device),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


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
