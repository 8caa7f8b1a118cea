"""How gunicorn reads: no URL or headers longer, and no body slower, than we allow; no long turn."""

from math import inf
from time import monotonic
from typing import Any

import gevent  # type: ignore[import-untyped]
from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]

from capacity.turns import PAUSE, TURN
from server.worker import CLIENT_TIMEOUT

# Bytes; gunicorn itself takes no more than 8190. A list's Link fits, with as many tags as allowed.
MAX_REQUEST_LINE = 20 * 1024
MAX_HEAD = 32 * 1024  # bytes of headers, and about as many of trailers
READ = 8 * 1024  # bytes that gunicorn reads at once; what it counts as head may end in as much body
BODY_RATE = 500  # bytes of a body that earn its client a second more than worker.BODY_TIMEOUT
WAITED = 0.0005  # seconds; a read that takes longer has waited, so others had their turn
STOPPED = CLIENT_TIMEOUT + 1  # seconds; only where this process was stopped does a read take longer

# gunicorn's own, taken before gunicorn.conf.py puts ours in its place.
read_chunk = SocketUnreader.chunk
# gunicorn sets this attribute to 3 MB for each request: a property that ignores it keeps ours.
longest_head = property(lambda _: MAX_HEAD + READ, lambda *_: None)


def read_chunk_in_turn(unreader: Any, size_hint: int | None = None) -> bytes:
    """Read what a client has sent; pause where it sends so fast that reads never wait.

    A body that has paused for too long ends here, as if it were cut off. The end of file is the
    end: on Linux, bytes still arrive at a socket that was shut for reading, and would be taken for
    the next request where they are the rest of a body.
    """
    patience = getattr(unreader, "patience", inf)  # seconds that a body may still be waited for
    if getattr(unreader, "has_ended", False) or patience < 0:
        unreader.has_ended = True
        return b""
    began = monotonic()
    try:
        data: bytes = read_chunk(unreader, size_hint)
    except TimeoutError:
        if monotonic() - began < STOPPED:
            raise
        data = read_chunk(unreader, size_hint)  # what came meanwhile is seen after the timeout
    unreader.has_ended = not data
    now = monotonic()
    waited = now - began if now - began < STOPPED else 0  # it was not the client that paused
    unreader.patience = patience - waited + len(data) / BODY_RATE
    if now - began > WAITED:
        unreader.turn_began = now
    elif now - unreader.__dict__.setdefault("turn_began", began) > TURN:
        gevent.sleep(PAUSE)
        unreader.turn_began = monotonic()
    return data
