"""NCCL's own report on its communicators (RAS, NCCL 2.24 and newer): a job answers on a loopback port of its nodes."""

import socket
import time
from collections.abc import Callable

PORT = 28028  # NCCL_RAS_ADDR moves it; who moves it asks with ncclras himself
QUESTION = b"verbose status\n"
LONGEST = 1 << 20
SECONDS = 2.0  # it answers at once, a hanging job's too: its threads are its own


def dial() -> socket.socket:
    """A connection to the port.

    Raises:
        OSError: nobody answers there.
    """
    return socket.create_connection(("127.0.0.1", PORT), timeout=1.0)


def report(connect: Callable[[], socket.socket] = dial, clock: Callable[[], float] = time.monotonic) -> str:
    """What NCCL reports on this node's job, as it is; empty where no NCCL offers it."""
    data, end = b"", clock() + SECONDS
    try:
        with connect() as line:
            line.sendall(QUESTION)
            while len(data) < LONGEST and (left := end - clock()) > 0:
                line.settimeout(left)
                part = line.recv(1 << 16)
                if not part:
                    break
                data += part
    except OSError:
        pass  # nobody listens, or it stopped within its answer: what came is what there is
    return data.decode("utf-8", errors="replace")
