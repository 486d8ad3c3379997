"""Compose's proxy as a process of this machine, somebody in the API's place behind it, and an engine's name server."""

import http.client
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.images.composing import TOOLS, composed, script
from tests.images.test_compose_parts import commands, started
from tests.images.watching import ready_after
from tests.ports import free_port
from tests.waiting import HANG


class Told(BaseHTTPRequestHandler):
    """Stands where the API will: says what it was sent, or streams two events with the server's word between them."""

    protocol_version = "HTTP/1.1"
    server: "Behind"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in (b"first", b"second"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(word), word))
            self.wfile.flush()
            self.server.go_on.wait(HANG)
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        if self.path == "/cut":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Behind(ThreadingHTTPServer):
    """The API's place."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        super().__init__((address, port), Told)
        self.bodies: list[bytes] = []
        self.go_on = threading.Event()

    def __enter__(self) -> "Behind":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()


class Names(socketserver.ThreadingUDPServer):
    """An engine's name server: `api` is at `address`, or nowhere."""

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), Named)
        self.address: str | None = address
        self.asked = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Named(socketserver.BaseRequestHandler):
    server: Names

    def handle(self) -> None:
        """RFC 1035: header, the question again, one A record that points at it. No AAAA."""
        question, socket = self.request
        self.server.asked += 1
        end = question.index(b"\0", 12) + 5
        address = self.server.address
        wants_a = question[end - 4 : end - 2] == b"\0\x01"
        answer = b""
        if address and wants_a:
            answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + bytes(map(int, address.split(".")))
        flags = b"\x81\x80" if address else b"\x81\x83"  # no such name
        counts = b"\0\x01" + (b"\0\x01" if answer else b"\0\0") + b"\0\0\0\0"
        socket.sendto(question[:2] + flags + counts + question[12:end] + answer, self.client_address)


@dataclass
class Proxy:
    """A running one: the port that it publishes, the one it looks for the API on, its log."""

    port: int
    api: int
    log: Path
    child: "subprocess.Popen[bytes]" = field(repr=False)

    def ask(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        connection.request(method, path, body)
        return connection.getresponse()

    def later(self, method: str, path: str, body: bytes | None = None) -> "Later":
        return Later(self, method, path, body)


class Later(threading.Thread):
    """A request under way; `said` once it is answered."""

    def __init__(self, proxy: Proxy, *request: Any) -> None:
        super().__init__(daemon=True)
        self.proxy, self.request, self.said = proxy, request, b""
        self.start()

    def run(self) -> None:
        self.said = self.proxy.ask(*self.request).read()

    def answer(self) -> bytes:
        self.join(HANG)
        assert not self.is_alive(), self.proxy.log.read_text()
        return self.said


@contextmanager
def proxied(folder: Path, hold: int = 60, names: Names | None = None) -> Iterator[Proxy]:
    """Compose's own words, with ports and places of this machine; where `names` is given the API is found by name."""
    part = composed(ONWARD_HOLD_SECONDS=str(hold))["services"]["proxy"]
    port, api, health = (free_port() for _ in range(3))
    moves = {"bind :8000": f"bind 127.0.0.1:{port}", ":8404": f":{health}"}
    if names is None:
        moves["api:8000"] = f"127.0.0.1:{api}"
    else:
        moves |= {"api:8000": f"api:{api}", "init-addr libc": "init-addr 127.0.0.1"}
        moves["parse-resolv-conf"] = f"nameserver engine 127.0.0.1:{names.server_address[1]}"
    text = part["environment"]["HAPROXY_CFG"]
    for old, new in moves.items():
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    env = {"HAPROXY_CFG": text, "PATH": commands(folder / "bin", haproxy=TOOLS / "haproxy")}
    with started(script(part, {"/tmp/": f"{folder}/"}), folder / "log", **env) as child:
        url = part["healthcheck"]["test"][-1].replace(":8404", f":{health}")
        ready_after(child, url, folder / "log")
        yield Proxy(port, api, folder / "log", child)


ESTABLISHED, LISTENS = "01", "0A"


def sockets(port: int, state: str) -> int:
    """How many are open on this side of `port`, in this state."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == state for line in lines)
