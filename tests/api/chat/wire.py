"""A worker as the wire has it, on a real socket: HTTP/1.1 kept alive, server-sent events, and every way to fail."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "shared-by-api-and-workers"
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 4}}
WORDS = ("one", " two", " three")


@dataclass
class Seen:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Wire:
    """What it does with the next requests: `act` gets the handler and the request. `cut` says when a client left."""

    url: str = ""
    act: Callable[["Handler", Seen], None] = field(default=lambda handler, seen: handler.answer(seen))
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    loads: int = 0
    cut: threading.Event = field(default_factory=threading.Event)
    frozen: threading.Event = field(default_factory=threading.Event)  # set: it answers nothing at all
    thaw: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    @property
    def wire(self) -> Wire:
        return self.server.wire

    def setup(self) -> None:
        super().setup()
        self.wire.connections += 1

    def do_GET(self) -> None:
        self.wire.loads += 1
        if self.wire.frozen.is_set():
            self.wire.thaw.wait()
        self.json(200, {"queued_tokens": 0, "held": [], "context": 128})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen = Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.wire.seen.append(seen)
        if self.headers["authorization"] != f"Bearer {SECRET}":
            return self.json(401, {"error": {"message": "no", "type": "x", "param": None, "code": None}})
        return self.wire.act(self, seen)

    def answer(self, seen: Seen) -> None:
        """As a worker does: whole, or streamed."""
        if not seen.body.get("stream"):
            return self.json(200, whole(seen))
        self.begin()
        for part in parts(seen):
            self.event(part)
        return self.done()

    def json(self, status: int, said: Any, **headers: str) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json", "content-length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str, param: str | None = None, **headers: str) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        said = {"message": message, "type": kind, "param": param, "code": code}
        self.json(status, {"error": said}, **headers)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def event(self, part: Any) -> None:
        self.piece(b"data: " + (part if isinstance(part, bytes) else json.dumps(part).encode()) + b"\n\n")

    def piece(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def done(self) -> None:
        self.event(b"[DONE]")
        self.ended()

    def ended(self) -> None:
        """The body ends as it should, whatever was in it."""
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def die(self) -> None:
        """As a process that is killed: the connection is reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def until_cut(self, part: Any) -> None:
        """Speaks on, until the client is gone."""
        try:
            while True:
                self.event(part)
                time.sleep(0.02)
        except OSError:
            self.wire.cut.set()
            self.close_connection = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass


def chunk(seen: Seen, content: str | None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    chats = seen.path.endswith("chat/completions")
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    choice |= {"delta": delta} if chats else {"text": content or ""}
    kind = "chat.completion.chunk" if chats else "text_completion"
    return {"id": "x", "object": kind, "created": 1, "model": seen.body["model"], "choices": [choice]}


def parts(seen: Seen) -> Iterator[dict[str, Any]]:
    for word in WORDS:
        yield chunk(seen, word)
    yield chunk(seen, None, "stop")
    yield chunk(seen, None) | {"choices": [], "usage": USAGE}


def whole(seen: Seen) -> dict[str, Any]:
    chats = seen.path.endswith("chat/completions")
    text = "".join(WORDS)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    choice |= {"message": {"role": "assistant", "content": text}} if chats else {"text": text}
    kind = "chat.completion" if chats else "text_completion"
    return {
        "id": "x", "object": kind, "created": 1, "model": seen.body["model"], "choices": [choice], "usage": USAGE,
    }  # fmt: skip


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    wire: Wire

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def listening(wire: Wire | None = None) -> Iterator[Wire]:
    """A worker that listens until the block ends."""
    wire = wire or Wire()
    server = Server(("127.0.0.1", 0), Handler)
    server.wire = wire
    wire.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        wire.thaw.set()
        server.shutdown()
        server.server_close()
