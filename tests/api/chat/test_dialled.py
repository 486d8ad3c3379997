"""HTTP as the API speaks it to workers, over real sockets: what is an answer, what is none, and which connections are
used again."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.chat.dialled import HEAD_BYTES, KEPT, Broken, Dial
from tests.ports import free_port
from tests.waiting import HANG

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = HEAD + b"content-length: 5\r\n\r\nhello"


class Peer:
    """Answers each request with the next of `says`, in the pieces given; after a tuple it hangs up. Says what it
    was asked."""

    def __init__(self, *says):
        self.says, self.asked, self.connections, self.lost = list(says), [], 0, asyncio.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.asked.append((head, await reader.readexactly(length)))
                said = self.says.pop(0) if self.says else WHOLE
                for piece in [said] if isinstance(said, bytes) else said:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if isinstance(said, tuple):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()
        writer.close()


@asynccontextmanager
async def peer(*says):
    of = Peer(*says)
    server = await asyncio.start_server(of.serve, "127.0.0.1", 0)
    of.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
    try:
        yield of
    finally:
        server.close()


async def body(dial, url, said=b"{}"):
    answer = await dial.ask("POST", url, {"x-a": "b"}, said)
    try:
        return b"".join([piece async for piece in answer.pieces()])
    finally:
        answer.close()


def ran(work):
    return asyncio.run(asyncio.wait_for(work, HANG))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 60))
def test_a_body_is_what_was_sent_however_it_is_cut(chunks, size):
    sent = CHUNKED + b"".join(b"%x;note=1\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\nTrailer: x\r\n\r\n"

    async def asked():
        async with peer([sent[i : i + size] for i in range(0, len(sent), size)], WHOLE) as of:
            dial = Dial(HANG)
            assert await body(dial, of.url, b"abc") == b"".join(chunks)
            assert await body(dial, of.url) == b"hello"
            assert of.connections == 1
            head, first = of.asked[0]
            assert head.startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
            assert first == b"abc"

    ran(asked())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1_0\r\n\r\nhello",
        b"HTTP/1.1 two OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n",
        CHUNKED + b"5\r\nhelloo\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"zz\r\nhello\r\n",
        CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * HEAD_BYTES),
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(200)) + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_broken_and_its_connection_not_used_again(said):
    async def asked():
        async with peer((said,)) as of:
            dial = Dial(HANG)
            with pytest.raises(Broken):
                await body(dial, of.url)
            assert await body(dial, of.url) == b"hello"
            assert of.connections == 2

    ran(asked())


@pytest.mark.parametrize(
    "said", [WHOLE + b"HTTP/1.1 200 OK\r\n", (WHOLE,), WHOLE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)]
)
def test_a_connection_on_which_more_came_or_that_ends_is_not_used_again(said):
    """What comes after an answer would be the next one's, and that is another tenant's."""

    async def asked():
        async with peer(said) as of:
            dial = Dial(HANG)
            assert await body(dial, of.url) == b"hello"
            await asyncio.sleep(0.05)  # what comes after it may come later
            assert await body(dial, of.url) == b"hello"
            assert of.connections == 2

    ran(asked())


def test_an_answer_that_is_left_cuts_its_connection():
    async def asked():
        async with peer(CHUNKED + b"5\r\nhello\r\n") as of:
            dial = Dial(HANG)
            answer = await dial.ask("POST", of.url, {})
            assert await anext(answer.pieces()) == b"hello"
            answer.close()
            await of.lost.wait()
            asking = asyncio.ensure_future(dial.ask("POST", of.url, {}))  # nor one that is given up before its head
            of.says = [b"HTTP/1.1 200"]
            while len(of.asked) < 2:
                await asyncio.sleep(0.001)
            of.lost.clear()
            asking.cancel()
            await of.lost.wait()

    ran(asked())


def test_connections_are_kept_and_no_more_than_are_to_be():
    async def asked():
        async with peer() as of:
            dial = Dial(HANG)
            for _ in range(2):
                both = [body(dial, of.url) for _ in range(KEPT + 1)]
                assert set(await asyncio.gather(*both)) == {b"hello"}
            assert of.connections == KEPT + 2

    ran(asked())


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x": "a\nb"}, {"x\r": "a"}])
def test_a_header_is_one(headers):
    async def asked():
        async with peer() as of:
            with pytest.raises(Broken):
                await Dial(HANG).ask("POST", of.url, headers)
            assert not of.asked

    ran(asked())


def test_nobody_listens():
    with pytest.raises(Broken):
        ran(Dial(HANG).ask("POST", f"http://127.0.0.1:{free_port()}/", {}))
