"""What a tenant may store: refused before a byte of it is, and never at a job's cost."""

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import openai
import pytest
from sqlalchemy import func, select

from db import files
from db.tables import File, FileChunk, Tenant
from db.tenant import storage
from tests.api.conftest import client, serving
from tests.api.examples import choices, http, jsonl, submit, upload
from tests.waiting import HANG

FILE = len(jsonl(*choices(9)))


def code(error):
    return error.value.status_code, error.value.body["code"], error.value.body["type"]


@pytest.fixture
def little(factory, url, request):
    """A tenant that may hold two files."""
    return client(factory, url, request.node.name[:200], max_bytes=2 * FILE)


def held(factory, who):
    with factory.begin() as session:
        chunks = select(func.coalesce(func.sum(func.length(FileChunk.data)), 0)).where(FileChunk.tenant_id == who.id)
        return storage.held(who.id, session), session.scalar(chunks)


def test_beyond_its_limit_an_upload_is_refused_and_nothing_is_stored(little, factory):
    first, _ = (upload(little, *choices(9)) for _ in range(2))
    with pytest.raises(openai.APIStatusError) as refused:
        upload(little, *choices(9))
    assert code(refused) == (413, "storage_quota_exceeded", "insufficient_quota")
    assert str(2 * FILE) in refused.value.body["message"]
    assert held(factory, little) == (2 * FILE, 2 * FILE)
    little.openai.files.delete(first)
    upload(little, *choices(9))


def test_it_is_refused_before_it_is_read(little, url):
    host = urlsplit(url)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {little.secret}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {1 << 20}\r\n\r\n"
    )
    with socket.create_connection((host.hostname, host.port), timeout=HANG) as wire:
        wire.sendall(head.encode())  # and not one byte of the body
        assert wire.recv(4096).startswith(b"HTTP/1.1 413")


def test_uploads_at_once_do_not_go_beyond_it_together(little, url, factory):
    def one(_):
        headers = {"Authorization": f"Bearer {little.secret}"}
        sent = {"file": ("a.jsonl", jsonl(*choices(9)))}
        return http.post(f"{url}/files", headers=headers, data={"purpose": "fine-tune"}, files=sent).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(one, range(8)))
    assert set(statuses) == {200, 413}
    assert 1 <= statuses.count(200) <= 2
    assert held(factory, little) == (statuses.count(200) * FILE,) * 2


def test_a_deleted_file_counts_while_a_job_needs_it(little, factory):
    file = upload(little, *choices(9))
    job = submit(little, file)
    little.openai.files.delete(file)
    assert held(factory, little) == (FILE, FILE)
    little.openai.fine_tuning.jobs.cancel(job.id)
    assert held(factory, little) == (0, 0)


def test_results_count_and_are_never_refused(little, factory):
    with factory.begin() as session:
        files.create(
            little.id, session, filename="a.tar", purpose="fine-tune-results", format=None, rows=0,
            chunks=[b"x" * 3 * FILE],
        )  # fmt: skip
    with pytest.raises(openai.APIStatusError) as refused:
        upload(little, *choices(1))
    assert code(refused)[1] == "storage_quota_exceeded"


def test_without_a_limit_of_its_own_the_setting_holds(settings, factory):
    with serving(settings.model_copy(update={"max_tenant_bytes": FILE})) as url:
        who = client(factory, url, "unlimited")
        upload(who, *choices(9))
        with pytest.raises(openai.APIStatusError) as refused:
            upload(who, *choices(9))
        assert code(refused)[1] == "storage_quota_exceeded"
        with factory.begin() as session:
            session.get_one(Tenant, who.id).max_bytes = 2 * FILE
        upload(who, *choices(9))
        with factory.begin() as session:
            assert session.scalar(select(func.count(File.id)).where(File.tenant_id == who.id)) == 2
