"""HTTP/1.1 to workers: as much of it as a worker of ours speaks. Knows bytes, no chat.

A client for everybody's servers costs more for each piece of a stream than all else that is done with it. Connections
are kept for a while; one is not on which an answer did not come to its end, or more came than that.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

KEEP_SECONDS: Final = 15.0  # that an idle connection is kept
KEPT: Final = 64  # idle ones, of all addresses
ROW_BYTES: Final = 64 << 10  # of a row of a head, or the one before a chunk
HEADERS: Final = 100
UNREAD_BYTES: Final = 256 << 10  # beyond, what the worker sends waits in its own socket


class Broken(Exception):
    """A worker that cannot be reached, cuts a connection, or answers what is no answer."""


class Line(asyncio.Protocol):
    """A connection. What came and is unread lies in `unread`."""

    def __init__(self, address: tuple[str, str]) -> None:
        self.address, self.since = address, 0.0
        self.unread = bytearray()
        self._ended, self._error = False, ""
        self._more: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        """For another request."""
        return not self._ended and not self.unread

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

    def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise Broken("the connection is cut")
        self._transport.write(data)

    def cut(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    async def row(self) -> str:
        """Up to the next end of a row. Raises Broken."""
        seen = 0
        while (end := self.unread.find(b"\r\n", max(seen - 1, 0))) < 0:
            seen = len(self.unread)
            if seen > ROW_BYTES:
                raise Broken("a row of its head does not end")
            await self._wait()
        found = self.unread[:end].decode("latin-1")
        del self.unread[: end + 2]
        return found

    async def some(self, most: int) -> bytes:
        """At least a byte, at most so many. Raises Broken."""
        while not self.unread:
            await self._wait()
        found = bytes(self.unread[:most])
        del self.unread[:most]
        return found

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
        line = self._line
        chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        left = 0 if chunked else _number(self.headers.get("content-length", ""), 10)
        while True:
            if chunked and not (left := _number((await line.row()).partition(";")[0].strip(), 16)):
                break
            while left:
                piece = await line.some(left)
                left -= len(piece)
                yield piece
            if not chunked:
                break
            if await line.row():
                raise Broken("a chunk is longer than it says")
        while chunked and await line.row():
            pass  # trailers
        self._over = True

    def close(self) -> None:
        if self._over and self.headers.get("connection", "").lower() != "close":
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
        head = "\r\n".join((f"{method} {parts.path} HTTP/1.1", *(f"{k}: {v}" for k, v in said.items())))
        if head.count("\r") + head.count("\n") != 2 * len(said):
            raise Broken("a header would not end where it should")
        line = self._kept((parts.scheme, parts.netloc)) or await self._opened(parts.scheme, parts.netloc)
        try:
            line.write(head.encode() + b"\r\n\r\n" + body)
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
        version, _, rest = (await line.row()).partition(" ")
        status = _number(rest[:3], 10)
        if version != "HTTP/1.1" or status < 200:
            raise Broken(f"it answered {version[:20]!r} {status}")
        headers: dict[str, str] = {}
        while row := await line.row():
            name, _, value = row.partition(":")
            headers[name.lower()] = value.strip()
            if len(headers) > HEADERS:
                raise Broken("its head does not end")
        return Answer(status, headers, line, self)


def _number(digits: str, base: int) -> int:
    if not digits.isalnum() or len(digits) > 12:
        raise Broken(f"no number: {digits[:20]!r}")
    try:
        return int(digits, base)
    except ValueError:
        raise Broken(f"no number: {digits[:20]!r}") from None


def _nothing() -> None:
    pass
