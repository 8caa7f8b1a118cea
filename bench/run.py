"""Measure the budgets: `make bench`, or `make bench ARGS=--quick` for a smoke test."""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also as `python bench/run.py`

from bench.batch import measure_batch
from bench.cpu import measure_cpu, on_one_core
from bench.features import measure_features
from bench.growth import measure_growth
from bench.lists import measure_lists
from bench.machine import others_seconds
from bench.postgres import PROJECT, connect, migrated_database, running_server, server_version
from bench.report import (
    batch_section,
    cpu_section,
    draw_plot,
    features_section,
    growth_section,
    lists_section,
    machine_section,
    memory_section,
    noise_section,
    throughput_section,
    write_page,
)
from bench.throughput import load_generator, measure_throughput

PARTS = ("cpu", "features", "batch", "http", "growth", "lists")
RESULTS = PROJECT / "docs" / "bench"


@dataclass(frozen=True, slots=True)
class Effort:
    cpu_rounds: int = 30
    cpu_count: int = 200
    feature_count: int = 50
    batch_rounds: int = 10
    batch_seconds: float = 0.5
    http_rounds: int = 3
    http_seconds: float = 4
    growth_rounds: int = 15
    growth_count: int = 1000
    growth_sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    list_rounds: int = 100
    list_tasks: int = 2_000_000


QUICK = Effort(3, 100, 20, 2, 0.2, 1, 1, 3, 300, (10_000, 100_000), 20, 200_000)


def measure(parts: list[str], effort: Effort, folder: Path | None) -> None:
    """Measure the parts one after the other; print each section as soon as it is there.

    Each has a server of its own, so that none waits for the checkpoints of another's writes.
    """
    sections: list[str] = []

    def keep(section: str) -> None:
        print(section, end="\n\n", flush=True)
        sections.append(section)

    started, others = time.monotonic(), others_seconds()
    with running_server() as server, connect(server) as connection:
        keep(machine_section(server_version(connection), generator_version()))
    if "cpu" in parts:
        with on_one_core(), running_server() as server, migrated_database(server, "cpu") as url:
            keep(cpu_section(measure_cpu(url, effort.cpu_rounds, effort.cpu_count)))
    if "features" in parts:
        with on_one_core(), running_server() as server, migrated_database(server, "with") as url:
            rounds, count = effort.cpu_rounds, effort.feature_count
            keep(features_section(measure_features(url, rounds, count)))
    if "batch" in parts:
        with running_server() as server, migrated_database(server, "batch") as url:
            keep(batch_section(measure_batch(url, effort.batch_rounds, effort.batch_seconds)))
    if "http" in parts:
        with (
            running_server() as server,
            migrated_database(server, "http") as url,
            migrated_database(server, "peer") as url_of_peer,
        ):
            rounds, seconds = effort.http_rounds, effort.http_seconds
            throughput = measure_throughput(url, url_of_peer, rounds, seconds)
        keep(throughput_section(throughput))
        keep(memory_section(throughput.memory))
        if folder:
            draw_plot(folder / "requests_per_second.svg", throughput.speeds)
    if "growth" in parts:
        with running_server() as server:
            rounds, count = effort.growth_rounds, effort.growth_count
            keep(growth_section(measure_growth(server, effort.growth_sizes, rounds, count)))
    if "lists" in parts:
        with running_server() as server:
            listed = measure_lists(server, effort.list_tasks, effort.list_rounds)
        keep(lists_section(listed, effort.list_tasks))
    keep(noise_section(others_share(others, time.monotonic() - started)))
    if folder:
        write_page(folder / "results.md", sections)


def others_share(before: float | None, elapsed: float) -> float | None:
    """Find the share of all cores that others used since `before`; None where it is not known."""
    after = others_seconds()
    if before is None or after is None or "BENCH_DATABASE_URL" in os.environ:
        return None  # a PostgreSQL that was not started here counts as another
    return max(0.0, after - before) / elapsed / (os.cpu_count() or 1)


def generator_version() -> str:
    name, command = load_generator()
    if name != "wrk":
        return name
    shown = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False)
    return " ".join(shown.stdout.split()[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its numbers say little")
    parser.add_argument(
        "--output", type=Path, help="folder for page and plot; default: docs/bench for a full run"
    )
    parser.add_argument(
        "--list-tasks",
        type=int,
        default=Effort().list_tasks,
        help="size of the table of the part lists, such as 10000000; default: %(default)s",
    )
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    is_full = parts == list(PARTS) and not arguments.quick
    folder = arguments.output or (RESULTS if is_full else None)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started, as on Ctrl-C
    effort = QUICK if arguments.quick else Effort(list_tasks=arguments.list_tasks)
    measure(parts, effort, folder)


if __name__ == "__main__":
    main()
