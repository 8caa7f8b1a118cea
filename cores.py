"""How many cores this process may use."""

import os
from contextlib import suppress
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Count the cores, within the CPU limit of a container.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # there is no such file, or no limit in it
        quota, period = map(int, CPU_LIMIT.read_text().split())
        return min(cores, -(-quota // period))
    return cores
