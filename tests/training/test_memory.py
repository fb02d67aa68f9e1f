"""Memory that a training frees is used again: counted by the kernel's page faults."""

import platform
import subprocess
import sys

import pytest

# Fills 64 MiB anew, many times, and prints how many pages the kernel provided for the last eight.
FILL = """
import resource, sys, torch
from fieldguide.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(48):
    torch.empty(2**24).fill_(1.0)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-9])
"""


def pages_taken(argument: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FILL, argument], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_not_taken_from_the_kernel_again() -> None:
    assert pages_taken("leave") > 200  # each time 16,384, or 32 huge ones
    assert pages_taken("keep") == 0
