"""Uploads: what is stored, and every way a file can be wrong."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from db.tables import File
from tests.api.conftest import Client
from tests.api.examples import CHAT, CHOICE, COMPLETION, choices, http, jsonl, upload
from tests.waiting import HANG


def refused(who: Client, data: bytes) -> dict[str, Any]:
    with pytest.raises(openai.BadRequestError) as caught:
        who.openai.files.create(file=("bad.jsonl", data), purpose="fine-tune")
    return dict(caught.value.body)


def test_upload_is_stored_and_comes_back_as_it_was(anna, factory):
    data = jsonl(*choices(3))
    made = anna.openai.files.create(file=("data/train.jsonl", data), purpose="fine-tune")
    assert (made.bytes, made.filename, made.purpose, made.status) == (
        len(data), "train.jsonl", "fine-tune", "processed",
    )  # fmt: skip
    assert made.model_extra["onward"]["rows"] == 3
    assert made.model_extra["onward"]["format"] == "choice"
    with factory.begin() as session:
        row = session.get(File, made.id)
        assert (row.tenant_id, row.rows) == (anna.id, 3)
    assert anna.openai.files.retrieve(made.id) == made
    assert anna.openai.files.content(made.id).read() == data


def test_a_file_of_several_chunks_comes_back_whole(anna):
    rows = [COMPLETION | {"prompt": "x" * 500_000 + str(i)} for i in range(5)]
    made = upload(anna, *rows)
    assert anna.openai.files.content(made).read() == jsonl(*rows)


def test_files_are_listed_in_pages_and_by_purpose(ben):
    made = [upload(ben, CHAT, name=f"{i}.jsonl") for i in range(5)]
    first = ben.openai.files.list(limit=2)
    assert [f.id for f in first.data] == made[:2:-1]
    assert first.has_more is True
    assert [f.id for f in ben.openai.files.list(limit=2)] == made[::-1]  # the client follows the pages
    assert [f.id for f in ben.openai.files.list(order="asc", limit=3)] == made
    assert list(ben.openai.files.list(purpose="fine-tune-results")) == []


def test_a_deleted_file_is_gone(anna):
    made = upload(anna, CHAT)
    assert anna.openai.files.delete(made).deleted is True
    for call in (anna.openai.files.retrieve, anna.openai.files.content, anna.openai.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(made)
    assert made not in [f.id for f in anna.openai.files.list()]


@pytest.mark.parametrize(
    "data, line, word",
    [
        (b"", 1, "empty"),
        (jsonl(COMPLETION) + b'{"prompt": "\xff", "completion": "a"}\n', 2, "UTF-8"),
        (jsonl(COMPLETION, COMPLETION) + b'{"prompt": "a", "completion"\n', 3, "JSON"),
        (jsonl(COMPLETION, [1]), 2, "object"),
        (jsonl(COMPLETION, {"prompt": "a"}), 2, "completion"),
        (jsonl({"prompt": 3, "completion": "a"}), 1, "prompt"),
        (jsonl(COMPLETION | {"weight": 1}), 1, "weight"),
        (jsonl(COMPLETION, CHAT), 2, "format"),
        (jsonl(CHOICE | {"label": 2}), 1, "label"),
        (jsonl(CHOICE | {"label": True}), 1, "label"),
        (jsonl(CHOICE | {"choices": [" great"]}), 1, "choices"),
        (jsonl({"messages": [{"role": "user", "content": "hi"}]}), 1, "assistant"),
        (jsonl({"messages": [{"role": "tool", "content": "hi"}]}), 1, "tool"),
        (jsonl(*[COMPLETION] * 2001), 2001, "rows"),
        (jsonl(COMPLETION) + b'{"prompt": "' + b"a" * (50 << 20) + b'", "completion": "b"}\n', 2, "longer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_told_with_its_line(anna, factory, data, line, word):
    with factory.begin() as session:
        before = session.query(File).count()
    body = refused(anna, data)
    assert body["param"] == "file"
    assert body["type"] == "invalid_request_error"
    assert body["message"].startswith(f"Line {line}: ")
    assert word in body["message"]
    assert len(body["message"]) < 500
    with factory.begin() as session:
        assert session.query(File).count() == before


def test_too_large_a_file_is_refused_before_it_is_read(anna, url):
    host = urlsplit(url)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {anna.secret}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {61 << 20}\r\n\r\n"
    )
    with socket.create_connection((host.hostname, host.port), timeout=HANG) as wire:
        wire.sendall(head.encode())  # and not one byte of the body
        assert wire.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "size, status, code", [(60, 400, "missing_required_parameter"), (61, 413, "request_too_large")]
)
def test_a_body_without_a_length_is_cut_at_the_limit(anna, url, size, status, code):
    """Neither body ends as a form must: what differs is whether it is read to its end."""

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from [b"\n" * (1 << 20)] * size

    headers = {"Authorization": f"Bearer {anna.secret}", "Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post(f"{url}/files", headers=headers, content=pieces())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "form, param",
    [
        ({"data": {"purpose": "fine-tune"}, "files": {"other": b"x"}}, "other"),
        ({"data": {"purpose": "batch"}, "files": {"file": b"x"}}, "purpose"),
        ({"data": {"purpose": "fine-tune", "file": "text"}, "files": {}}, "file"),
        ({"json": {"purpose": "fine-tune"}}, "file"),
    ],
)
def test_a_form_that_is_not_right_names_its_field(anna, url, form, param):
    answer = http.post(f"{url}/files", headers={"Authorization": f"Bearer {anna.secret}"}, **form)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_file_names_are_labels_only(anna):
    made = anna.openai.files.create(file=("../../etc/\x07pa\nsswd", json.dumps(CHAT).encode()), purpose="fine-tune")
    assert made.filename == "passwd" or "/" not in made.filename
    assert made.filename.isprintable()
