"""Freed memory is reused, which shows in the number of page faults."""

import platform
import subprocess
import sys

import pytest

# Allocates and fills 64 MiB 48 times; prints the page faults of the last eight times.
FILL = """
import resource, sys, torch
from fieldguide.core.memory import keep_freed_memory
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only for glibc")
def test_freed_memory_is_not_requested_from_the_kernel_again() -> None:
    assert pages_taken("leave") > 200  # 16,384 pages each time, or 32 huge pages
    assert pages_taken("keep") == 0
