"""Takes files in, checks them, and passes them on while it still takes. Sent to other machines: Python 3.6 alone.

Orders come in and reports go out as one JSON object a line; each report begins with MARK, since a login shell may print
what it likes. The program ends when its input does, or when nothing was heard for PATIENCE seconds: with it go its
port, its lock and its threads.
"""

import errno
import hmac
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, Optional, Tuple

from shoal.host.relay_store import PIECE, Item, Store, Trouble

MARK = "shoal-relay:"
PATIENCE = 20.0  # seconds without a word from the one who gives orders
HANDSHAKE = 10.0  # seconds in which a caller has to prove that it knows the token
TICK = 0.3  # seconds between two reports of how far it is
CALLERS = 8  # at once; each node has one that is meant


class Relay:
    """The files of one transfer on this machine."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self.tell = tell
        self.store: Any = None  # a Store, once it is open
        self.upstream: Optional[Tuple[str, int]] = None
        self._token = ""
        self._line: Optional[socket.socket] = None
        self._callers = threading.BoundedSemaphore(CALLERS)
        self._pulling = False
        self._taking = threading.Lock()

    # What is here.

    def open(self, order: Dict[str, Any]) -> None:
        """Take the store, look at what is there, and listen."""
        self.store = store = Store(order["root"], order["who"], self.tell)
        if order["scan"]:
            self.tell("found", files=store.scan(order["scan"]), root=store.root)
            return
        store.look(order["files"], order["anew"])
        self._token = order["token"]
        port = self._listen(order["address"], order["port"]) if order["address"] else 0
        self.report(port=port, free=shutil.disk_usage(store.root).free, root=store.root)

    def at(self) -> Tuple[int, int]:
        """Bytes that are here, and bytes that were looked at."""
        store = self.store
        return (sum(item.held() for item in store.items), store.looked) if store else (0, 0)

    def report(self, **more: Any) -> None:
        """Say what is here: what is whole, and how much of the rest."""
        with self.store.changed:
            have = [item.index for item in self.store.items if item.have]
            parts = {item.index: item.got for item in self.store.items if item.got and not item.have}
        self.tell("ready", have=have, parts=parts, **more)

    # Taking in.

    def fetch(self, upstream: Optional[Tuple[str, int]]) -> None:
        """Take what is missing from there, from now on; None: from nobody."""
        with self.store.changed:
            self.upstream = upstream
            line, begin = self._line, not self._pulling
            self._pulling = True
            self.store.changed.notify_all()
        if line is not None:
            _shut(line)
        if begin:
            self.begin(self._pull_all)

    def stand(self) -> None:
        """Take from nobody from now on, and say what is here."""
        self.fetch(None)
        with self._taking:
            self.report()

    def begin(self, work: Callable[..., None], *words: Any) -> None:
        """Do something beside the rest."""
        threading.Thread(target=self.guarded, args=(work, *words), daemon=True).start()

    def guarded(self, work: Callable[..., None], *words: Any) -> None:
        """Do something, and say why it failed."""
        try:
            work(*words)
        except Trouble as error:
            self.tell("failed", what=error.what, fix=error.fix)
        except OSError as error:
            self.tell("failed", what=_reason(error), errno=error.errno or 0)
        except Exception as error:  # noqa: BLE001  nobody sees a traceback over there: it is told
            self.tell("failed", what="%s: %s" % (type(error).__name__, error))

    def _pull_all(self) -> None:
        for item in self.store.items:
            while not item.have:
                with self.store.changed:
                    self.store.changed.wait_for(lambda: self.upstream is not None)
                with self._taking:
                    upstream = self.upstream
                    why = self._pull(item, upstream) if upstream is not None else ""
                if why:
                    if upstream is not None and upstream == self.upstream:
                        self.tell("cut", why=why, upstream=list(upstream))
                    time.sleep(0.5)

    def _pull(self, item: Item, upstream: Tuple[str, int]) -> str:
        """Take one file; why it stopped before its end, or nothing."""
        if item.got == item.size:  # it is empty, or whole and was not looked at any more
            self.store.take(item, b"")
            return ""
        try:
            line = socket.create_connection(upstream, timeout=HANDSHAKE)
        except OSError as error:
            return _reason(error)
        with line:
            self._line = line
            try:
                if upstream != self.upstream:
                    return "told to ask another"
                _ask(line, self._token, item.index, self.store.begin(item))
                _keep_alive(line)
            except (OSError, ValueError) as error:
                return _reason(error)
            return self._drain(item, line)

    def _drain(self, item: Item, line: socket.socket) -> str:
        buffer = bytearray(PIECE)
        view = memoryview(buffer)
        turn = item.round
        while not item.have and item.round == turn:
            try:
                size = line.recv_into(view[: min(PIECE, item.size - item.got)])
            except OSError as error:
                return _reason(error)
            if not size:
                return "the connection was closed"
            self.store.take(item, view[:size])
        return ""

    # Passing on.

    def _listen(self, address: str, port: int) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError as error:
            raise _no_port(error, address, port) from error
        server.listen(CALLERS)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return int(server.getsockname()[1])

    def _accept(self, server: socket.socket) -> None:
        while True:
            line, caller = server.accept()
            if self._callers.acquire(blocking=False):
                threading.Thread(target=self._call, args=(line, caller[0]), daemon=True).start()
            else:
                line.close()

    def _call(self, line: socket.socket, caller: str) -> None:
        try:
            with line:
                self._answer(line, caller)
        except (OSError, ValueError, LookupError, TypeError):
            pass  # the caller went, or said what nobody asked: it asks again, or it was no node
        finally:
            self._callers.release()

    def _answer(self, line: socket.socket, caller: str) -> None:
        line.settimeout(HANDSHAKE)
        nonce = secrets.token_hex(16)
        line.sendall(nonce.encode() + b"\n")
        told = json.loads(_read_line(line, time.monotonic() + HANDSHAKE))
        index, offset = int(told["file"]), int(told["offset"])
        if not hmac.compare_digest(str(told["proof"]), _proof(self._token, nonce, index, offset)):
            self.tell("refused", caller=caller)
            line.sendall(b"refused\n")
            return
        line.sendall(b"ok\n")
        _keep_alive(line)
        self._send(line, self.store.items[index], offset)

    def _send(self, line: socket.socket, item: Item, offset: int) -> None:
        """Send a file as far as it is here, and go on while it comes."""
        turn = item.round

        def more() -> bool:
            return item.have or item.got > offset or item.round != turn

        with self.store.changed:
            self.store.changed.wait_for(more)
            file = open(item.final if item.have else item.part, "rb")
        with file:
            while offset < item.size:
                with self.store.changed:
                    self.store.changed.wait_for(more)
                    if item.round != turn:
                        return
                    end = item.held()
                while offset < end:
                    sent = os.sendfile(line.fileno(), file.fileno(), offset, min(end - offset, 8 * PIECE))
                    if not sent:
                        return
                    offset += sent


def _no_port(error: OSError, address: str, port: int) -> Trouble:
    if error.errno == errno.EADDRNOTAVAIL:
        return Trouble(
            "%s is no address of that machine" % address, "correct `fabric` of that host in the cluster file"
        )
    if error.errno == errno.EADDRINUSE:
        return Trouble("port %d of %s is taken there" % (port, address), "--port with another, or: ss -ltnp   # there")
    return Trouble("%s, port %d: %s" % (address, port, _reason(error)), "--port with another")


def _proof(token: str, nonce: str, index: int, offset: int) -> str:
    """What only one who knows the token can say, and which is good for one call."""
    return hmac.new(token.encode(), ("%s %d %d" % (nonce, index, offset)).encode(), "sha256").hexdigest()


def _ask(line: socket.socket, token: str, index: int, offset: int) -> None:
    """Ask for a file from there on; ValueError where that is refused."""
    until = time.monotonic() + HANDSHAKE
    nonce = _read_line(line, until)
    asked = {"file": index, "offset": offset, "proof": _proof(token, nonce, index, offset)}
    line.sendall(json.dumps(asked).encode() + b"\n")
    if _read_line(line, until) != "ok":
        raise ValueError("it refused the token")


def _read_line(line: socket.socket, until: float) -> str:
    """A short line, byte by byte: what follows it is not ours. All of it has to come by then, not each byte anew."""
    told = b""
    while not told.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0:
            raise ValueError("it took too long")
        line.settimeout(left)
        piece = line.recv(1)
        if not piece or len(told) > 512:
            raise ValueError("it broke off")
        told += piece
    return told.decode().rstrip("\n")


def _keep_alive(line: socket.socket) -> None:
    """Wait without end, but not for one who is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30000)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _shut(line: socket.socket) -> None:
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class Chair:
    """The one who gives orders: words come in at standard input, reports go out at standard output."""

    def __init__(self) -> None:
        self._out = threading.Lock()
        self._heard, self._busy = time.monotonic(), False
        self.relay = Relay(self.tell)

    def tell(self, told: str, **more: Any) -> None:
        """Report something; where nobody listens any more, end."""
        with self._out:
            try:
                sys.stdout.write(MARK + json.dumps(dict(more, told=told)) + "\n")
                sys.stdout.flush()
            except OSError:
                os._exit(1)

    def obey(self) -> None:
        """Do what comes in, until nothing comes any more."""
        threading.Thread(target=self._tick, daemon=True).start()
        words = sys.stdin.buffer
        for line in iter(words.readline, b""):
            order = json.loads(line.decode())
            data = self._listen(words, order.get("size", 0))
            self._busy = True  # what takes long here is no silence of the other side
            self._do(order, data)
            self._heard, self._busy = time.monotonic(), False
        if self.relay.store:
            self.relay.store.close()
        os._exit(0)  # threads that wait for somebody are not waited for

    def _listen(self, words: Any, size: int) -> bytes:
        """The data that follow an order. A chair that is lost in the middle of them is silent too."""
        data = bytearray()
        while len(data) < size:
            self._heard = time.monotonic()
            piece = words.read1(size - len(data))
            if not piece:
                break
            data += piece
        return bytes(data)

    def _do(self, order: Dict[str, Any], data: bytes) -> None:
        relay = self.relay
        if order["do"] == "put":
            relay.guarded(relay.store.put, order["file"], order["at"], data)
        elif order["do"] == "fetch":
            relay.fetch((order["from"][0], order["from"][1]))
        elif order["do"] == "open":
            relay.begin(relay.open, order)
        elif order["do"] == "stand":
            relay.begin(relay.stand)

    def _tick(self) -> None:
        """Say how far it is, and end where nobody is heard."""
        told = (-1, -1)
        while self._busy or time.monotonic() < self._heard + PATIENCE:
            now = self.relay.at()
            if now != told:
                told = now
                self.tell("at", bytes=now[0], looked=now[1])
            time.sleep(TICK)
        os._exit(1)


def main() -> None:
    """Serve whoever started this."""
    Chair().obey()
