"""A real Redis server for tests."""

import shutil
import subprocess
from pathlib import Path
from signal import SIGTERM

from processes import free_port, wait_until
from redis import Redis
from redis.exceptions import RedisError

from children import end_with_parent

PROGRAM = shutil.which("redis-server") or "redis-server"
PASSWORD = "of-the-tests"


class RedisServer:
    """A Redis server that keeps nothing, and can be ended, hung and started anew."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.hasty_url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/1"
        # The machine of the tests may be too busy to answer in time.
        self.url = f"{self.hasty_url}?socket_timeout=1&socket_connect_timeout=1"
        self._folder = folder
        self.start()

    def start(self) -> None:
        options = ["--port", self.port, "--save", "", "--requirepass", PASSWORD]
        options += ["--dir", self._folder, "--logfile", "log"]
        self.popen = subprocess.Popen(
            [PROGRAM, *map(str, options)], preexec_fn=end_with_parent(SIGTERM)
        )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
