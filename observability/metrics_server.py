"""A process that serves the sum of all workers' metrics, whatever those are busy with."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import end_with_parent
from config import PROJECT, ConfigError, Settings, require_free_port


def prepare(settings: Settings) -> None:
    """Make and empty the folder for the workers' numbers, and tell prometheus_client where it is.

    Call it before anything imports prometheus_client, once per start: a reload must not empty it.

    Raises:
        ConfigError: the port is taken, or the folder is somebody else's.
    """
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    place = f"{settings.metrics_host}-{settings.metrics_port}"  # others may have the port elsewhere
    folder = parent / f"tasks-metrics-{os.geteuid()}-{place}"
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR") == str(folder):
        return
    # A process that has the port may be using the folder.
    require_free_port(settings.metrics_host, settings.metrics_port, "METRICS")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ConfigError(f"{folder} is not this user's; set another METRICS_PORT.")
    for file in folder.glob("*.db"):
        file.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """Start the process; it ends with this one.

    Raises:
        ConfigError: the port is taken.
    """
    require_free_port(settings.metrics_host, settings.metrics_port, "METRICS")
    return subprocess.Popen(
        [sys.executable, "-m", __name__, settings.metrics_host, str(settings.metrics_port)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONSAFEPATH": ""},  # else it finds no module there
        preexec_fn=end_with_parent(signal.SIGTERM),
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and remove the folder it read; after a kill, the next start empties it."""
    process.terminate()
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def serve(host: str, port: int) -> None:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    server, thread = start_http_server(port, host, registry)
    write_traceback = server.handle_error

    def handle_error(request: Any, client: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a TCP probe may end in a reset
            write_traceback(request, client)

    server.handle_error = handle_error  # type: ignore[assignment, method-assign]
    thread.join()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
