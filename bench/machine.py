"""The machine, and how much of it others used: the bench's figures hold for it only."""

import os
import platform
import resource
from pathlib import Path

CPU_INFORMATION = Path("/proc/cpuinfo")
CPU_TIMES = Path("/proc/stat")


def describe_machine() -> list[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return [
        f"{cpu_model()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    ]


def cpu_model() -> str:
    for line in CPU_INFORMATION.read_text().splitlines() if CPU_INFORMATION.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def others_seconds() -> float | None:
    """Count the CPU seconds of everything but this process and those of its children that ended.

    None where there is no /proc (Linux's proc(5) has the fields).
    """
    if not CPU_TIMES.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, CPU_TIMES.read_text().split("\n", 1)[0].split()[1:]
    )
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return busy - sum(usage.ru_utime + usage.ru_stime for usage in own)
