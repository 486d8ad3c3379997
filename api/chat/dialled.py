"""HTTP/1.1 to workers, by h11 on connections of asyncio's. Knows bytes, no chat.

A client with pools, proxies and redirects costs more for each piece of a stream than all else that is done with it.
Connections are kept for a while; one is not on which an answer did not come to its end, or more came than that.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import h11

KEEP_SECONDS: Final = 15.0  # that an idle connection is kept
KEPT: Final = 64  # idle ones, of all addresses
HEAD_BYTES: Final = 64 << 10
UNREAD_BYTES: Final = 256 << 10  # beyond, what the worker sends waits in its own socket


class Broken(Exception):
    """A worker that cannot be reached, cuts a connection, or answers what is no answer."""


class Line(asyncio.Protocol):
    """A connection. What came and was not yet looked at lies in `unread`."""

    def __init__(self, address: tuple[str, str]) -> None:
        self.address, self.since = address, 0.0
        self.unread = bytearray()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._ended, self._error = False, ""
        self._more: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        """For another request: both sides are ready for one, and nothing came that nobody asked for."""
        states = self._http.our_state, self._http.their_state
        return not self._ended and not self.unread and states == (h11.IDLE, h11.IDLE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if len(self.unread) > UNREAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._error = True, repr(error) if error else ""
        self._wake()

    def send(self, request: h11.Request, body: bytes) -> None:
        """Raises Broken."""
        if self._transport is None or self._transport.is_closing():
            raise Broken("the connection is cut")
        parts = (request, h11.Data(data=body), h11.EndOfMessage())
        self._transport.write(b"".join(self._http.send(part) or b"" for part in parts))

    def cut(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    async def event(self) -> h11.Event:
        """What comes next of the answer. Raises Broken."""
        try:
            while (found := self._http.next_event()) is h11.NEED_DATA:
                while not self.unread:
                    await self._wait()
                self._http.receive_data(bytes(self.unread))
                self.unread.clear()
        except h11.RemoteProtocolError as error:
            raise Broken(f"it answered what is no answer: {error}") from error
        if found is h11.PAUSED or isinstance(found, h11.ConnectionClosed):
            raise Broken("nothing is left of its answer")
        return cast(h11.Event, found)

    def next(self) -> None:
        """After a whole answer. What came beyond it, or was to be the connection's last, leaves it unusable."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()

    async def _wait(self) -> None:
        if self._ended:
            raise Broken(f"its connection ended {self._error}".rstrip())
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


@dataclass
class Answer:
    """What came of a request, its body still to come. Must be closed: before its end, that cuts the connection."""

    status: int
    headers: dict[str, str]  # by name in lower case
    _line: Line = field(repr=False)
    _dial: "Dial" = field(repr=False)
    _over: bool = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises Broken."""
        while not isinstance(event := await self._line.event(), h11.EndOfMessage):
            if isinstance(event, h11.Data) and event.data:
                yield bytes(event.data)
        self._over = True

    def close(self) -> None:
        if self._over:
            self._line.next()
            self._dial.keep(self._line)
        else:
            self._line.cut()
        self.close = _nothing  # type: ignore[method-assign]  # by now it may be another's


class Dial:
    """The connections of one event loop."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._idle: list[Line] = []  # the one used last is last

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """The answer, once its head is there. Raises Broken."""
        parts = urlsplit(url)
        said = {"host": parts.netloc, **headers, "content-length": str(len(body))}
        try:
            request = h11.Request(method=method, target=parts.path, headers=list(said.items()))
        except h11.LocalProtocolError as error:
            raise Broken(f"it cannot be asked that: {error}") from error
        line = self._kept((parts.scheme, parts.netloc)) or await self._opened(parts.scheme, parts.netloc)
        try:
            line.send(request, body)
            return await self._begun(line)
        except BaseException:
            line.cut()
            raise

    def keep(self, line: Line) -> None:
        line.since = time.monotonic()
        self._idle.append(line)
        self._sweep()

    def _kept(self, address: tuple[str, str]) -> Line | None:
        self._sweep()
        found = next((line for line in reversed(self._idle) if line.address == address), None)
        if found is not None:
            self._idle.remove(found)
        return found

    def _sweep(self) -> None:
        since = time.monotonic() - KEEP_SECONDS
        good = [line for line in self._idle if line.usable and line.since > since][-KEPT:]
        for line in self._idle:
            if line not in good:
                line.cut()
        self._idle = good

    async def _opened(self, scheme: str, netloc: str) -> Line:
        to = urlsplit(f"//{netloc}")
        secure = ssl.create_default_context() if scheme == "https" else None
        loop = asyncio.get_running_loop()
        try:
            port = to.port or (443 if secure else 80)
            async with asyncio.timeout(self._connect_seconds):
                made = loop.create_connection(lambda: Line((scheme, netloc)), to.hostname or "", port, ssl=secure)
                return (await made)[1]
        except (OSError, ValueError, TimeoutError) as error:
            raise Broken(f"no connection: {error!r}") from error

    async def _begun(self, line: Line) -> Answer:
        event = await line.event()
        if not isinstance(event, h11.Response) or event.http_version != b"1.1":
            raise Broken(f"it did not begin an answer of HTTP/1.1: {event!r:.200}")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        if not headers.keys() & {"content-length", "transfer-encoding"}:
            raise Broken("its answer would end wherever its connection does")
        return Answer(event.status_code, headers, line, self)


def _nothing() -> None:
    pass
