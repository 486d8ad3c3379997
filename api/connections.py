"""What a connection may cost before a request stands on it, and how many there may be. Knows bytes, no route."""

import asyncio
import ipaddress
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from api.settings import Settings, networks

FINISH_SECONDS = 20
HEAD_BYTES = 64 << 10


@dataclass(frozen=True)
class Bounds:
    """Seconds for a request's head, for what is left of a body once it is answered, and for a client that does not
    read; connections in all and of an address, none of the `exempt` networks."""

    head: float
    rest: float
    unread: float
    connections: int
    of_address: int
    exempt: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    open: "Counter[str]"

    def counted(self, address: str) -> bool:
        """Whether the connections of this address are one client's: those of a proxy are not."""
        try:
            known = ipaddress.ip_address(address)
        except ValueError:  # a socket of this machine
            return False
        return not any(known in network for network in self.exempt)


class Watched:
    """Before uvicorn's protocol, of h11 or httptools: a connection has a request under way, or a time that runs."""

    bounds: Bounds
    # uvicorn's
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    connections: set[Any]
    cycle: Any

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._read = 0
        self.bounds.open[self._address] += 1
        crowded = self.bounds.counted(self._address) and self.bounds.open[self._address] > self.bounds.of_address
        if crowded or len(self.connections) > self.bounds.connections:
            self._refuse(503, "Too many connections are open: try again.", "unavailable")
        else:
            self._run(self.bounds.head)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._read += len(data)
        super().data_received(data)  # type: ignore[misc]
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop()
            self._read = 0
        elif self._timer is None:
            answered = self.cycle is not None and self.cycle.more_body
            self._run(self.bounds.rest if answered else self.bounds.head)
        elif self._read > HEAD_BYTES and not (self.cycle is not None and self.cycle.more_body):
            self._refuse(431, f"The request's head exceeds {HEAD_BYTES} bytes.", "request_too_large")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self._stalled is not None:
            self._stalled.cancel()
        self.bounds.open[self._address] -= 1
        if not self.bounds.open[self._address]:
            del self.bounds.open[self._address]
        super().connection_lost(exc)  # type: ignore[misc]

    def pause_writing(self) -> None:
        self._stalled = self.loop.call_later(self.bounds.unread, self.transport.abort)
        super().pause_writing()  # type: ignore[misc]

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()  # type: ignore[misc]

    def _run(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._read and (self.cycle is None or not self.cycle.more_body):
            self._refuse(408, f"The request's head did not come within {self.bounds.head:g} s.", "request_timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
        lines = [f"HTTP/1.1 {status} Refused", "content-type: application/json", f"content-length: {len(body)}"]
        lines += ["retry-after: 1"] * (status == 503) + ["connection: close", "", ""]
        self._stop()
        self.transport.write("\r\n".join(lines).encode() + body)
        self.transport.close()


def config(app: Callable[..., Any], settings: Settings, **changes: Any) -> uvicorn.Config:
    """uvicorn's, for an app whose connections are bounded by these settings."""
    bounds = Bounds(
        settings.head_seconds,
        settings.body_idle_seconds,
        settings.unread_seconds,
        settings.max_connections,
        settings.max_connections_of_address,
        networks(settings.trusted_proxies),
        Counter(),
    )
    bounded: Any = type("Bounded", (Watched, AutoHTTPProtocol), {"bounds": bounds})
    wanted: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": bounded,
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "timeout_keep_alive": settings.keep_alive_seconds,
        "timeout_graceful_shutdown": FINISH_SECONDS,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
    }
    return uvicorn.Config(app, **(wanted | changes))
