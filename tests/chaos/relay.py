"""A wire between a client and a server that can be cut without a sign: nothing is closed, nothing arrives any more."""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType

READ = 65536
TICK = 0.05  # seconds between looks at whether it is to end


class Relay:
    """Forwards from a port of its own to `port` on this machine. While it is cut, it takes connections and bytes and
    passes none; what it had taken arrives once it is healed, in order."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open, self._over = threading.Event(), threading.Event()
        self._open.set()
        self._last: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._open.set()
        self._listener.close()

    def cut(self) -> None:
        self._open.clear()

    def cut_after(self, words: bytes) -> None:
        """As `cut`, once a client has said this: what it said arrives, the answer does not."""
        self._last = words

    @property
    def is_cut(self) -> bool:
        return not self._open.is_set()

    def heal(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self._open.wait()
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                ends = {client: server, server: client}
                while not self._over.is_set():
                    readable, _, _ = select.select(list(ends), [], [], TICK)
                    self._open.wait()
                    for end in readable:
                        data = end.recv(READ)
                        if not data:
                            return
                        ends[end].sendall(data)
                        if self._last is not None and end is client and self._last in data:
                            self._last = None
                            self.cut()
