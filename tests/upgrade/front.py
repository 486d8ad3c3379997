"""What stands before the API in a deployment: connections go to whichever process is in rotation now."""

import socket
import threading
from contextlib import suppress


class Front:
    """Forwards bytes to a port. Connections that exist stay where they are when it is switched."""

    def __init__(self, to: int) -> None:
        self._to, self._switching = to, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, to: int) -> None:
        """New connections go to `to`; on return none is under way to the port before, as after a preStop hook."""
        with self._switching:
            self._to = to

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._switching:
                    server = socket.create_connection(("127.0.0.1", self._to))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
