"""The tables, the page and the plot that a run leaves behind."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib

from bench.batch import NOTHING_NEW
from bench.cpu import Cpu
from bench.features import Added
from bench.growth import Growth
from bench.lists import LIMIT, TASKS_OF_USER, Lists
from bench.machine import describe_machine
from bench.memory import Memory
from bench.throughput import CONNECTIONS, FLOOR, OURS, PEER, PROCESSES, Speeds, Throughput
from bench.traffic import OPERATIONS, READS

matplotlib.use("svg")
from matplotlib import pyplot

PACKAGES = {
    OURS: ("flask", "flask-smorest", "marshmallow", "psycopg", "psycopg-pool", "gunicorn", "pyjwt"),
    PEER: ("fastapi", "sqlmodel", "sqlalchemy", "asyncpg", "python-jose", "uvicorn", "uvloop"),
}

# Microseconds on a machine where a bare Flask takes FLASK_OF_BUDGETS; scaled on others.
CPU_BUDGETS = {"list": 170, "get": 150, "toggle": 150}
FLASK_OF_BUDGETS = 61
SPEED_BUDGETS = {name: 3 if name in READS else 4 for name in OPERATIONS}  # times the peer
GROWTH_BUDGET = 1.2
LIST_BUDGETS = {False: 5, True: 20}  # milliseconds; True: with words
MEMORY_BUDGET = 80  # MiB
BATCH_BUDGETS = {  # times a single request
    NOTHING_NEW: ("get", 1),
    "batch of 100 creates": ("create", 10),
    "batch of 100 patches": ("patch", 10),
    "batch of 100 completions": ("toggle", 10),
    "batch of 100 patches with a key": ("patch with a key", 10),
}
NOISE_LIMIT = 0.05  # of all cores


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Draw a Markdown table that reads well as plain text: names left, numbers right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        " | ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = " | ".join(
        "-" * (width - 1) + ":" if place else "-" * width for place, width in enumerate(widths)
    )
    return "\n".join(f"| {line} |" for line in (drawn[0], rule, *drawn[1:]))


def cpu_section(measured: dict[str, Cpu]) -> str:
    rows = []
    for operation, cpu in measured.items():
        budget = CPU_BUDGETS.get(operation, 0) * cpu.flask / FLASK_OF_BUDGETS
        rows.append(
            (
                operation,
                *(f"{each:.0f}" for each in (cpu.ours, cpu.flask, cpu.psycopg, cpu.floor)),
                f"{cpu.ours - cpu.floor:.0f}",
                f"{budget:.0f}" if budget else "",
                verdict(cpu.ours <= budget) if budget else "",
            )
        )
    head = ("operation", "ours", "Flask alone", "psycopg alone", "floor", "above", "budget", "")
    return (
        "## CPU of a request in process, µs\n\n"
        "The WSGI application called directly, no HTTP server. The floor is a bare Flask plus\n"
        "psycopg's cursor running the same prepared statement, measured in the same rounds.\n"
        "All on one core, and commits do not wait for the disk. The budgets (list 170, get and\n"
        "toggle 150 µs) were set where a bare Flask takes 61 µs; here they stand in proportion.\n\n"
        + table(head, rows)
    )


def throughput_section(measured: Throughput) -> str:
    rows = []
    for operation in OPERATIONS:
        speeds = [measured.speeds[server][operation] for server in (OURS, FLOOR, PEER)]
        ours, floor, peer = (speed.requests_per_second for speed in speeds)
        budget = SPEED_BUDGETS[operation]
        rows.append(
            (
                operation,
                *(f"{rate:,.0f}" for rate in (ours, floor, peer)),
                f"{ours / floor:.2f}",
                f"{ours / peer:.1f}",
                f"{budget}",
                verdict(ours / peer >= budget),
                *(f"{speed.p50:.1f}" for speed in (speeds[0], speeds[2])),
                *(f"{speed.p99:.1f}" for speed in (speeds[0], speeds[2])),
            )
        )
    head = (
        *("operation", "ours, req/s", "floor, req/s", "peer, req/s", "of floor", "of peer"),
        *("budget", ""),
        *("ours, p50 ms", "peer, p50 ms", "ours, p99 ms", "peer, p99 ms"),
    )
    return (
        "## Requests a second over HTTP\n\n"
        f"Ours: {OURS}. Floor: {FLOOR}: the least\n"
        "that answers on our packages, a token and one statement without any feature. Peer:\n"
        f"{PEER}. {PROCESSES} processes each, {CONNECTIONS} connections, one load thread,\n"
        "the same PostgreSQL and data, in turns; a list has 20 tasks.\n\n"
        "![Requests a second](requests_per_second.svg)\n\n" + table(head, rows)
    )


def memory_section(measured: dict[str, Memory | None]) -> str:
    rows = []
    for server, memory in measured.items():
        is_ours = server == OURS
        rows.append(
            (
                server,
                f"{memory.rss:.0f}" if memory else "not measured",
                f"{memory.pss:.0f}" if memory else "not measured",
                f"{MEMORY_BUDGET}" if is_ours else "",
                verdict(memory.rss <= MEMORY_BUDGET) if is_ours and memory else "",
            )
        )
    return (
        "## Memory of the largest worker process, MiB\n\n"
        "RSS: the highest during the load above. PSS: after it; shared pages count in part.\n\n"
        + table(("server", "RSS", "PSS", "budget", ""), rows)
    )


def growth_section(measured: Growth) -> str:
    rows = []
    for operation, costs in measured.items():
        smallest = costs[min(costs)]
        for size, cost in costs.items():
            ratio = cost.request / smallest.request
            rows.append(
                (
                    operation,
                    f"{size:,}",
                    f"{cost.request:.0f}",
                    f"{ratio:.2f}",
                    f"{GROWTH_BUDGET}",
                    verdict(ratio <= GROWTH_BUDGET),
                    f"{cost.statement:.0f}",
                    f"{cost.statement / smallest.statement:.2f}",
                    f"{cost.pages:.0f}",
                )
            )
    return (
        "## Growth with other people's tasks\n\n"
        "What a get or a list costs until its response, in process; of that the statement in\n"
        "PostgreSQL (EXPLAIN ANALYZE), and the pages it touches. Each user has 20 tasks.\n\n"
        + table(
            (
                "operation",
                "tasks",
                "request, µs",
                "ratio",
                "budget",
                "",
                "statement, µs",
                "ratio",
                "pages",
            ),
            rows,
        )
    )


def lists_section(measured: Lists, tasks: int) -> str:
    rows = []
    for label, listed in measured.items():
        budget = LIST_BUDGETS[listed.has_words]
        rows.append(
            (
                label,
                f"{listed.p50:.2f}",
                f"{listed.p95:.2f}",
                f"{listed.pages:.0f}",
                f"{budget}",
                verdict(listed.p95 <= budget),
            )
        )
    return (
        "## Lists of a user with many tasks\n\n"
        f"Time of the statement in PostgreSQL (EXPLAIN ANALYZE) and pages it touches: {LIMIT} of\n"
        f"{TASKS_OF_USER:,} tasks in a table of {tasks:,}, in the API's role, generic plans.\n\n"
        + table(("list", "p50, ms", "p95, ms", "pages", "budget", ""), rows)
    )


def features_section(measured: list[Added]) -> str:
    rows = [
        (
            added.feature.name,
            "on" if added.feature.is_default else "off",
            added.feature.operation,
            f"{added.cost.cpu:.0f}",
            f"{added.cost.cpu / added.without.cpu:.0%}",
            f"{added.cost.elapsed:.0f}",
            f"{added.cost.elapsed / added.without.elapsed:.0%}",
        )
        for added in measured
    ]
    head = ("feature", "by default", "request", "CPU, µs", "", "until the response, µs", "")
    return (
        "## What each feature costs\n\n"
        "A request with the feature beside one without it, in turns, in process; the median\n"
        "difference, and its share of the request without. CPU is this process's; until the\n"
        "response counts PostgreSQL too, whose commits do not wait for the disk here.\n\n"
        + table(head, rows)
    )


def batch_section(measured: dict[str, float]) -> str:
    rows = []
    for name, microseconds in measured.items():
        single, budget = BATCH_BUDGETS.get(name, ("", 0))
        ratio = microseconds / measured[single] if single else 0
        rows.append(
            (
                name,
                f"{microseconds:,.0f}",
                f"{ratio:.1f} times {single}" if single else "",
                f"{budget}" if single else "",
                verdict(ratio < budget) if single else "",
            )
        )
    head = ("request", "until the response, µs", "", "budget", "")
    return (
        "## Batches, and changes\n\n"
        "Over HTTP, one request after the other on one connection; commits wait for the disk.\n\n"
        + table(head, rows)
    )


def machine_section(postgresql: str, generator: str) -> str:
    lines = [
        *describe_machine(),
        f"PostgreSQL {postgresql}, on the same machine as servers and load",
        f"Load generator: {generator}",
        *(
            f"{server}: " + ", ".join(f"{name} {version(name)}" for name in names)
            for server, names in PACKAGES.items()
        ),
    ]
    return "## The machine\n\n" + "\n".join(f"- {line}" for line in lines)


def noise_section(share: float | None) -> str:
    """Say how much of the machine others used: the peer suffers from them more than ours does."""
    if share is None:
        told = "How much of the machine others used is not known."
    else:
        told = f"Others used {share:.0%} of the machine's CPU time."
        if share > NOISE_LIMIT:
            told += " That is too much: these figures, and their verdicts, mean little."
    return f"## Noise\n\n{told}"


def write_page(path: Path, sections: list[str]) -> None:
    head = f"# Results\n\nWritten by `make bench` on {datetime.now(UTC):%Y-%m-%d}."
    path.write_text("\n\n".join([head, *sections]) + "\n")


def draw_plot(path: Path, speeds: dict[str, Speeds]) -> None:
    # Without these two, every run would change the file's ids and date.
    matplotlib.rcParams |= {"svg.hashsalt": "requests_per_second", "svg.fonttype": "none"}
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    colours = {OURS: "#1f6f8b", FLOOR: "#9cc4d0", PEER: "#c9c9c9"}
    for place, (server, colour) in enumerate(colours.items()):
        heights = [speeds[server][operation].requests_per_second for operation in OPERATIONS]
        places = [index + 0.28 * (place - 1) for index in range(len(OPERATIONS))]
        bars = axes.bar(places, heights, width=0.26, color=colour, label=server)
        axes.bar_label(bars, [f"{height:,.0f}" for height in heights], padding=2, fontsize=7)
    axes.set_xticks(range(len(OPERATIONS)), OPERATIONS)
    axes.set_ylabel("requests a second")
    axes.set_title(f"{PROCESSES} processes, {CONNECTIONS} connections, same PostgreSQL", size=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
