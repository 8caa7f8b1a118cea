"""PgBouncer in front of a PostgreSQL server."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from own_postgres import OwnPostgres
from processes import as_url, wait_until
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from children import end_with_parent
from development import embedded

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
POOL_SIZE = 2  # sessions of PostgreSQL for all clients of PgBouncer

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
PATIENCE = "20s"  # of the role, as an operator may have set it


class PgBouncer:
    """Pools the sessions of a server, whose socket it is given."""

    def __init__(self, folder: Path, server: OwnPostgres) -> None:
        place = conninfo_to_dict(server.url)
        self.folder = folder
        self.file = folder / "pgbouncer.ini"
        users = folder / "users.txt"
        users.write_text('"tasks" ""\n"tasks_api" ""\n')
        self.config = (
            f"[databases]\ntasks = host={place['host']} port={place['port']}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {POOL_SIZE}\nserver_login_retry = 1\nlogfile = {folder / 'log'}\n"
        )
        self.url = as_url(make_conninfo(host=folder, port=6432, user="tasks_api", dbname="tasks"))
        self.start()

    def start(self, more: str = "") -> None:
        self.file.write_text(self.config + more)
        # It refuses root as PostgreSQL does.
        prefix, _ = embedded.account(self.file)
        self.popen = subprocess.Popen(
            [*prefix, PROGRAM, "-q", self.file], preexec_fn=end_with_parent(signal.SIGKILL)
        )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, prepare_threshold=None)

    def stop(self) -> None:
        self.popen.kill()  # at SIGTERM, 1.23 waits for its clients to leave
        self.popen.wait()
