"""Describe what a result depends on: versions of libraries, and the machine if it matters."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import torch

NUMERIC = ("torch", "torchvision", "numpy", "timm")  # those that compute a training
LIBRARIES = (*NUMERIC, "pillow", "scikit-learn", "matplotlib")  # those that results depend on


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of libraries."""
    return {name: importlib.metadata.version(name) for name in libraries}


def numeric_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a training."""
    return versions(NUMERIC)


def describe_machine(device: torch.device) -> dict[str, object]:
    """Describe what a training's rounding depends on besides versions, without names."""
    instructions = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}, oneDNN: {instructions}",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def describe_environment(device: torch.device, *, portable: bool) -> dict[str, object]:
    """Describe this process without paths or names; portable results depend on no machine."""
    threads = {"threads": torch.get_num_threads()}
    machine = threads if portable else describe_machine(device)
    return {"portable": portable, **machine, "libraries": versions()}


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
