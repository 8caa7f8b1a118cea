"""PostgreSQL's own programs, run as the account that may run them, and their error messages."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from children import end_with_parent
from config import CommandError

STOP_SECONDS = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 6.0))
COMPLAINT = re.compile(r"(?:FATAL|ERROR|error):\s+(.+)(?:\n.*HINT:\s+(.+))?")
PANIC = re.compile(r"PANIC:\s+(.+)(?:\n.*HINT:\s+(.+))?")  # often only an echo of an error


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server: fast, then at once (postgres(1), SIGINT and SIGQUIT), then by force."""
    for how, seconds in STOP_SECONDS:
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    process.kill()
    process.wait()


class EmbeddedError(CommandError):
    """The embedded PostgreSQL cannot do what was asked; its text is one line for a person."""


class Programs(NamedTuple):
    """PostgreSQL's programs, their log, what runs them, and the user and group of their files."""

    folder: Path
    log: Path
    prefix: tuple[str, ...]
    owner: tuple[int, int] | None

    def spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program, away from the terminal."""
        self.log.touch(0o600)  # for its owner alone: PostgreSQL quotes rows that it refuses
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, self.folder / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"LC_ALL": "C"},  # its complaints are read here
                start_new_session=True,  # Ctrl-C is for the caller, who stops the server last
                preexec_fn=end_with_parent(signal.SIGINT),  # PostgreSQL's fast shutdown
            )

    def run(self, name: str, *arguments: str) -> None:
        """Run a program to its end; EmbeddedError with its last complaint when it fails."""
        process = self.spawn(name, *arguments)
        try:
            code = process.wait()
        finally:
            stop(process)
        if code != 0:
            raise EmbeddedError(f"PostgreSQL's {name} failed: {self.complaint()}")

    def complaint(self) -> str:
        """Return PostgreSQL's own last error and hint; on a full disk its log lacks them."""
        text = self.log.read_text(errors="replace")
        for said in COMPLAINT.findall(text)[-1:] or PANIC.findall(text)[-1:]:
            return " ".join(said).strip()
        free = shutil.disk_usage(self.log.parent).free // 2**20
        last = (text.strip().splitlines() or ["it says nothing"])[-1]
        return f"{last} ({free} MiB left on the disk)"

    def own(self, folder: Path) -> None:
        """Hand `folder` and all in it to the owner, where that is somebody else."""
        if self.owner and folder.stat().st_uid != self.owner[0]:
            for path in (*folder.rglob("*"), folder):  # `folder` last: nobody enters meanwhile
                os.chown(path, *self.owner, follow_symlinks=False)
