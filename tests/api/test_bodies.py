"""Requests that no client sends: whatever stands in a head, a form, a query or a path is refused, never a 5xx."""
# ruff: noqa: E501 (tables of what was sent)

import gzip
import json
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from tests.api.examples import CHAT, http, jsonl
from tests.waiting import HANG

GOOD = jsonl(CHAT)


def form(
    file: bytes = b'name="file"; filename="a.jsonl"', purpose: bytes = b'name="purpose"', more: bytes = b""
) -> bytes:
    return (
        b"--x\r\nContent-Disposition: form-data; " + purpose + b"\r\n" + more + b"\r\nfine-tune\r\n"
        b"--x\r\nContent-Disposition: form-data; " + file + b"\r\n" + more + b"\r\n" + GOOD + b"\r\n--x--\r\n"
    )


@pytest.fixture
def post(anna, url):
    def send(
        content: bytes, kind: str | bytes = "multipart/form-data; boundary=x", path: str = "files", **headers: str
    ):
        head = {"Authorization": f"Bearer {anna.secret}", "Content-Type": kind, **headers}
        return http.post(f"{url}/{path}", headers=head, content=content)

    return send


def refused(answer) -> dict[str, object]:
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


CHARSETS = (
    "undefined",
    "idna",
    "punycode",
    "rot13",
    "zip",
    "hex",
    "base64",
    "unicode_escape",
    "utf-16",
    "x" * 5000,
)


@pytest.mark.parametrize("charset", [*CHARSETS, "utf-7", "latin-1", "mbcs", ""])
def test_a_form_in_another_charset_is_refused(post, charset):
    assert refused(post(form(), f'multipart/form-data; boundary=x; charset="{charset}"'))["param"] == "file"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"', "us-ascii"])
def test_a_form_in_utf_8_is_taken(post, charset):
    assert post(form(), f"multipart/form-data; boundary=x; charset={charset}").status_code == 200


@pytest.mark.parametrize("kind", [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "y" * 3000,
    "multipart/form-data; boundary*=utf-8''x", "multipart/form-data; boundary*0=x; boundary*1=y", "multipart/mixed; boundary=x",
    "multipart/form-data; boundary*=undefined''x", "multipart/form-data;" * 200, "multipart/form-data; boundary=\"", "",
    b"multipart/form-data; boundary=\xff", b"multipart/form-data; boundary=x; charset=\xff", "application/json", ";", "=",
])  # fmt: skip
def test_a_form_whose_type_is_not_right_is_refused(post, kind):
    refused(post(form(), kind))


@pytest.mark.parametrize("file", [
    b"name=\"file\"; filename*=undefined''a", b"name=\"file\"; filename*=idna''%ff", b"name=\"file\"; filename*=utf-8''%ff%00",
    b"name=\"file\"; filename*=x", b"name=\"file\"; filename*0=a; filename*1=b", b"name*=punycode''file; filename=a",
    b'name="file"; filename="\xff\xfe"', b'name="file"; filename="\x00"', b'name="file"; filename=', b"name=file; filename=\"a",
    b'name="file"; filename="' + b"a" * 3000 + b'"', b"name; filename", b"filename=a", b";;;", b'name="\xff"; filename="a"',
])  # fmt: skip
@pytest.mark.parametrize(
    "more", [b"", b"Content-Type: text/plain; charset=undefined\r\n", b"Content-Transfer-Encoding: x\r\n"]
)
def test_what_a_part_says_of_itself_is_a_label_or_refused(post, file, more):
    answer = post(form(file, more=more))
    if answer.status_code == 200:
        assert answer.json()["filename"].isprintable()
    else:
        refused(answer)


@hypothesis(max_examples=60)
@given(data=st.data())
def test_a_form_that_was_tampered_with_is_stored_or_refused(anna, url, data):
    raw = bytearray(form())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=5)
            | st.sampled_from([b"\r\n", b"--x", b"\r\n\r\n", b"--x--", b": ", b";", b'"', b"\x00"])
        )
    kind = data.draw(st.sampled_from(["x", "-x", "xx", '"x"', "x; charset=utf-8", "x;boundary=y"]))
    head = {"Authorization": f"Bearer {anna.secret}", "Content-Type": f"multipart/form-data; boundary={kind}"}
    answer = http.post(f"{url}/files", headers=head, content=bytes(raw))
    assert answer.status_code == 200 or refused(answer)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x", "gzip, gzip", "GZIP"])
@pytest.mark.parametrize("path", ["files", "fine_tuning/jobs"])
def test_nothing_is_decompressed(post, path, encoding):
    answer = post(gzip.compress(b" " * (1 << 20)), path=path, **{"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert refused(answer)["code"] == "unsupported_content_encoding"
    assert post(form(), **{"Content-Encoding": "identity"}).status_code == 200


JSON = [
    b'{"model": "tiny", "model": "tiny"}', b'{"seed": 1e999}', b'{"seed": ' + b"9" * 100_000 + b"}", b'{"onward": {"alpha": 1e999}}',
    b'{"onward": {"alpha": -Infinity}}', b"[" * 100_000, b'{"a":' * 50_000, b'"' + b"\\u0000" * 1000 + b'"', b"\xef\xbb\xbf{}",
    b'{"metadata": {"\\ud800": "x"}}', b'{"model": "\\u0000"}', b'{"training_file": "\\u0000"}', b'{"onward": {"targets": ["\\u0000"]}}',
    b'{"onward": {"eval_every": ' + b"1" * 4000 + b"}}", b"0" * 5000, b"-0", b"1e-400", b'{"' + b"k" * 500_000 + b'": 1}',
]  # fmt: skip


@pytest.mark.parametrize("raw", JSON, ids=range(len(JSON)))
def test_json_that_is_a_trick_is_refused(post, raw):
    for body in (raw, b'{"model": "tiny", "training_file": "file-1", ' + raw[1:]):
        error = refused(post(body, "application/json", "fine_tuning/jobs"))
        assert len(json.dumps(error)) < 4096


@pytest.mark.parametrize("path", [
    "files?after=%00", "files?after=%ff", "files?limit=" + "9" * 5000, "files?limit=1e999", "files?limit=-1", "files?order=x",
    "files?purpose=%00", "files/%00", "files/%ff/content", "files/" + "x" * 9000, "files/..%2f..%2fetc", "fine_tuning/jobs?after=%00",
    "fine_tuning/jobs?limit=%00", "fine_tuning/jobs?metadata[%00]=x", "fine_tuning/jobs?metadata[a]=%00", "fine_tuning/jobs/%00",
    "fine_tuning/jobs/%00/events", "fine_tuning/jobs/x/events?after=ftevent-" + "9" * 30, "fine_tuning/jobs/x/checkpoints?after=ftckpt-x-999999999",
    "fine_tuning/jobs/%ed%a0%80/events", "models/%00", "models/" + "%2e%2e/" * 9, "models/%ff", "files?" + "a=b&" * 5000, "files?after=" + "a" * 20_000,
])  # fmt: skip
def test_paths_and_queries_that_are_tricks_are_no_server_error(anna, url, path):
    answer = http.get(f"{url}/{path}", headers={"Authorization": f"Bearer {anna.secret}"})
    assert answer.status_code < 500, answer.text


HEADS = {
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n",
    "two equal lengths": "Content-Length: 5\r\nContent-Length: 5\r\n",
    "length of 5000 digits": f"Content-Length: {'9' * 5000}\r\n",
    "negative length": "Content-Length: -1\r\n",
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "unknown transfer": "Transfer-Encoding: gzip, chunked\r\n",
    "bad chunk": "Transfer-Encoding: chunked\r\n",
    "folded header": "X-A: b\r\n c\r\nContent-Length: 5\r\n",
    "a key of bytes": "X-Request-ID: \xff\x01\r\nContent-Length: 5\r\n",
    "idempotency of bytes": "Idempotency-Key: \xff\r\nContent-Length: 5\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("path", ["/v1/files", "/v1/fine_tuning/jobs"])
def test_heads_that_are_tricks_are_no_server_error(anna, url, head, path):
    host = urlsplit(url)
    text = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {anna.secret}\r\nConnection: close\r\n"
    text += f"Content-Type: multipart/form-data; boundary=x\r\n{head}\r\nzzzzz"
    with socket.create_connection((host.hostname, host.port), timeout=HANG) as wire:
        wire.sendall(text.encode("latin-1"))
        wire.shutdown(socket.SHUT_WR)
        answer = wire.recv(4096)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
