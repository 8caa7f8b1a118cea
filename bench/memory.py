"""Resident memory of a server's largest worker process, as Linux counts it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    rss: float  # MiB, the highest so far
    pss: float  # MiB, with each shared page divided among its processes


def measure_memory(server_pid: int) -> Memory | None:
    """Find the largest child of a server process; None where there is no /proc."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    each = [
        Memory(mebibytes(pid, "status", "VmHWM:"), mebibytes(pid, "smaps_rollup", "Pss:"))
        for pid in children
    ]
    return max(each, key=lambda memory: memory.rss)


def mebibytes(pid: str, file: str, field: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/{file} has no {field}")
