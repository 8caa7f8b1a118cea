"""gunicorn's gevent worker: a stalled client is let go, a stop waits only for what is in flight."""

import socket
from contextlib import suppress
from time import monotonic
from typing import Any

from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

CLIENT_TIMEOUT = 10.0  # seconds in which a client neither sends its body nor reads its answer
KEPT_AT_STOP = 1.0  # seconds that a client gets at a stop to send the request it may have begun
DRAIN_TIMEOUT = 5.0  # seconds for what a client still sends when its answer is on the way
LINGER_TIMEOUT = 1.0  # seconds of it without a byte


class Worker(GeventWorker):  # type: ignore[misc]
    """Tells the connections that wait for a request from those that are being answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting_since: dict[socket.socket, float] = {}

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self.waiting_since[client] = monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            self.waiting_since.pop(client, None)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        del self.waiting_since[sock]
        sock.settimeout(CLIENT_TIMEOUT)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            raise StopIteration from None  # as gunicorn ends a connection, without a traceback
        finally:
            sock.settimeout(None)
            self.waiting_since[sock] = monotonic()

    def notify(self) -> None:
        """Called once a second; at a stop, from when nothing is accepted any more."""
        super().notify()
        if not self.alive:
            for client, since in list(self.waiting_since.items()):
                if monotonic() - since > KEPT_AT_STOP:
                    # What has arrived is still read and answered; beyond it the client has ended.
                    # By a twin, as gevent would have the wait of the socket itself fail.
                    with suppress(OSError), client.dup() as twin:
                        twin.shutdown(socket.SHUT_RD)


def close(client: socket.socket) -> None:
    """Close a connection in a way that its client can read the answer to what it still sends.

    Closing on unread bytes is a reset, and loses what is on the way.
    """
    deadline = monotonic() + DRAIN_TIMEOUT
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while (seconds := deadline - monotonic()) > 0:
            client.settimeout(min(seconds, LINGER_TIMEOUT))
            if not client.recv(64 * 1024):
                break
    client.close()
