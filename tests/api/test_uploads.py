"""Files in parts, and files that expire, as the openai client sends them."""

import hashlib
import time

import openai
import pytest
from sqlalchemy import select, text, update

from api import expiry
from api.app import create_app
from db.tables import File, FileChunk, Upload
from tests.api.conftest import client
from tests.api.examples import http, jsonl

ROWS = jsonl(*({"prompt": f"a {i}", "completion": " b"} for i in range(20)))
FIRST, SECOND = ROWS[:100], ROWS[100:]


def begin(who, size=len(ROWS), **more):
    return who.openai.uploads.create(
        filename="a.jsonl", purpose="fine-tune", bytes=size, mime_type="application/jsonl", **more
    )


def part(who, upload, data):
    return who.openai.uploads.parts.create(upload.id, data=data).id


def sweep(settings):
    expiry.sweep(create_app(settings).state.context)


def stored(factory, tenant):
    with factory.begin() as session:
        return session.scalars(select(FileChunk.file_id).where(FileChunk.tenant_id == tenant)).all()


def test_parts_become_a_file_in_the_order_named(settings, factory, url):
    who = client(factory, url, "parts")
    upload = begin(who, expires_after={"anchor": "created_at", "seconds": 3600})
    assert (upload.status, upload.bytes, upload.expires_at - upload.created_at) == ("pending", len(ROWS), 3600)
    last, first = part(who, upload, SECOND), part(who, upload, FIRST)
    assert list(who.openai.files.list()) == [], "a part is nobody's file"
    wrong = {"part_ids": [last, first], "md5": hashlib.md5(ROWS, usedforsecurity=False).hexdigest()}
    with pytest.raises(openai.BadRequestError):
        who.openai.uploads.complete(upload.id, **wrong)
    done = who.openai.uploads.complete(upload.id, **wrong | {"part_ids": [first, last]})
    assert (done.status, done.file.bytes, done.file.expires_at - done.file.created_at) == ("completed", len(ROWS), 3600)
    assert who.openai.files.content(done.file.id).read() == ROWS
    assert set(stored(factory, who.id)) == {done.file.id}, "its parts are gone"
    with pytest.raises(openai.BadRequestError, match="completed"):
        part(who, upload, FIRST)


@pytest.mark.parametrize(
    "order, md5, param",
    [([], None, "part_ids"), ([0], None, "part_ids"), ([0, 0], None, "part_ids"), ([0, 1], "0" * 32, "md5")],
)
def test_what_is_not_whole_is_refused_and_can_be_mended(anna, order, md5, param):
    upload = begin(anna)
    made = [part(anna, upload, data) for data in (FIRST, SECOND)]
    with pytest.raises(openai.BadRequestError) as refused:
        anna.openai.uploads.complete(upload.id, part_ids=[made[i] for i in order], **({"md5": md5} if md5 else {}))
    assert refused.value.param == param
    assert anna.openai.uploads.complete(upload.id, part_ids=made).file.filename == "a.jsonl"


def test_a_bad_row_is_told_with_its_line(anna):
    data = FIRST + b"no json\n"
    upload = begin(anna, len(data))
    with pytest.raises(openai.BadRequestError, match="Line"):
        anna.openai.uploads.complete(upload.id, part_ids=[part(anna, upload, data)])


def test_parts_count_against_the_quota_and_a_cancelled_upload_has_none(factory, url):
    who = client(factory, url, "small", max_bytes=len(ROWS))
    with pytest.raises(openai.APIStatusError) as refused:
        begin(who, len(ROWS) + 1)
    assert refused.value.status_code == 413
    one, other = begin(who), begin(who)
    part(who, one, ROWS)
    with pytest.raises(openai.APIStatusError) as refused:
        part(who, other, FIRST)
    assert refused.value.code == "storage_quota_exceeded"
    with pytest.raises(openai.BadRequestError, match="more than"):
        part(who, one, FIRST)
    assert who.openai.uploads.cancel(one.id).status == "cancelled"
    assert stored(factory, who.id) == []
    part(who, other, FIRST)


def test_another_tenants_upload_is_not_there(anna, ben):
    upload = begin(anna)
    for call in (lambda: part(ben, upload, FIRST), lambda: ben.openai.uploads.cancel(upload.id)):
        with pytest.raises(openai.NotFoundError):
            call()


def test_an_upload_that_nobody_completes_expires_with_its_parts(settings, factory, url):
    who = client(factory, url, "late")
    upload = begin(who)
    part(who, upload, FIRST)
    with factory.begin() as session:
        session.execute(update(Upload).where(Upload.id == upload.id).values(expires_at=text("now()")))
    with pytest.raises(openai.BadRequestError, match="expired"):
        part(who, upload, SECOND)
    sweep(settings)
    assert stored(factory, who.id) == []
    with factory.begin() as session:
        assert session.get_one(Upload, upload.id).status == "expired"


def test_a_file_expires_when_it_was_asked_to(settings, factory, url):
    who = client(factory, url, "brief")
    after = {"anchor": "created_at", "seconds": 7200}
    file = who.openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", expires_after=after)
    assert file.expires_at - file.created_at == 7200
    assert file.expires_at > time.time()
    sweep(settings)
    assert who.openai.files.retrieve(file.id).expires_at == file.expires_at
    with factory.begin() as session:
        session.execute(update(File).where(File.id == file.id).values(expires_at=text("now()")))
    sweep(settings)
    assert stored(factory, who.id) == []
    with pytest.raises(openai.NotFoundError):
        who.openai.files.retrieve(file.id)


@pytest.mark.parametrize(
    "after", [{"anchor": "now", "seconds": 7200}, {"anchor": "created_at", "seconds": 3599}, {"seconds": 7200}]
)
def test_an_expiry_that_cannot_be_is_named(anna, after):
    with pytest.raises(openai.BadRequestError) as refused:
        anna.openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", expires_after=after)
    assert refused.value.param.startswith("expires_after.")
    body = {"filename": "a", "purpose": "fine-tune", "bytes": 1, "mime_type": "", "expires_after": after}
    said = http.post(f"{anna.openai.base_url}uploads", headers={"Authorization": f"Bearer {anna.secret}"}, json=body)
    assert said.status_code == 400
