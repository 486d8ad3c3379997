"""What a key may, how it ends, and when it was last used."""

import json
import socket
import threading
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select, text, update

from api.app import create_app
from api.auth import ASKS
from api.last_use import LastUse
from db.tables import ApiKey
from db.tenant import keys
from db.tenant.keys import USED_EVERY
from tests.api.examples import CHOICE, choices, http, submit, upload
from tests.waiting import HANG, until


def a_key(factory, who, **wanted):
    """Its id, and the header that sends it."""
    with factory.begin() as session:
        row, secret = keys.create_key(session, who.id if who else None, **wanted)
    return row.id, {"authorization": f"Bearer {secret}"}


def routes(settings):
    paths = create_app(settings).openapi()["paths"]
    return [
        (verb.upper(), path.replace("{", "").replace("}", ""))
        for path, verbs in paths.items()
        for verb in verbs
        if path.startswith("/v1")
    ]


def test_a_read_key_reads_and_changes_nothing_on_any_route(anna, factory, url, settings):
    _, reader = a_key(factory, anna, scope="read")
    job = submit(anna, upload(anna, *choices(3)))
    found = routes(settings)
    assert {verb for verb, _ in found} >= {"GET", "POST", "DELETE"}
    for verb, path in found:
        answer = http.request(verb, url.removesuffix("/v1") + path.replace("job_id", job.id), headers=reader)
        if verb == "GET":
            assert answer.status_code in (200, 404), (path, answer.text)
        elif path in ASKS:  # it changes nothing: tests/api/test_receipts.py
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "receipt_not_json")
        else:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (403, "insufficient_scope"), (verb, path)
            assert set(error) == {"message", "type", "param", "code"}
    assert anna.openai.fine_tuning.jobs.retrieve(job.id).status == "queued"


def test_an_operators_key_speaks_for_no_tenant_on_any_of_a_tenants_routes(factory, url, settings):
    _, operator = a_key(factory, None, scope="operator")
    for verb, path in routes(settings):
        if path != "/v1/onward/audit":
            answer = http.request(verb, url.removesuffix("/v1") + path, headers=operator)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope"), (verb, path)


def test_a_read_key_is_refused_before_its_body_is_read(anna, factory, url):
    """The body is announced and never sent: an answer can come only from one who does not wait for it."""
    _, reader = a_key(factory, anna, scope="read")
    at = urlsplit(url)
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: {at.netloc}\r\nauthorization: {reader['authorization']}\r\n"
        "content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n"
    )
    with socket.create_connection((at.hostname, at.port), timeout=HANG) as connection:
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 403"


def test_wrong_revoked_and_expired_keys_look_alike(anna, factory, url):
    revoked, with_revoked = a_key(factory, anna)
    expired, with_expired = a_key(factory, anna, lasts=USED_EVERY)
    assert http.get(f"{url}/models", headers=with_expired).status_code == 200
    with factory.begin() as session:
        assert keys.revoke_key(session, revoked)
        session.execute(update(ApiKey).where(ApiKey.id == expired).values(expires_at=func.clock_timestamp()))
    wrong = {"authorization": "Bearer sk-onward-" + "x" * 43}
    answers = [http.get(f"{url}/models", headers=sent) for sent in (wrong, with_revoked, with_expired)]
    assert [a.status_code for a in answers] == [401] * 3
    assert len({json.dumps(a.json()) for a in answers}) == 1
    assert len({a.headers["www-authenticate"] for a in answers}) == 1


def last_used(factory, key):
    with factory.begin() as session:
        return session.execute(select(ApiKey.last_used_at, text("xmin::text")).where(ApiKey.id == key)).one()


def test_a_keys_last_use_is_known_and_not_written_at_every_request(anna, factory, url):
    key, sent = a_key(factory, anna)
    assert last_used(factory, key)[0] is None
    http.get(f"{url}/models", headers=sent)
    until(lambda: last_used(factory, key)[0], "the key's last use is written")
    before = last_used(factory, key)
    for _ in range(20):
        assert http.get(f"{url}/models", headers=sent).status_code == 200
    with factory.begin() as session:  # nor by another process, which remembers nothing
        keys.mark_used(session, key)
    assert last_used(factory, key) == before
    with factory.begin() as session:
        earlier = ApiKey.last_used_at - USED_EVERY
        session.execute(update(ApiKey).where(ApiKey.id == key).values(last_used_at=earlier))
        keys.mark_used(session, key)
    assert last_used(factory, key)[0] > before[0]


def test_a_key_is_noted_once_in_a_while_and_by_itself(factory, anna):
    notes = LastUse(HANG)
    assert [notes.note(factory, key, anna.id) for key in ("key_a", "key_b", "key_a")] == [True, True, False]
    always = LastUse(0.0)
    assert all(always.note(factory, "key_a", anna.id) for _ in range(3))


@pytest.mark.parametrize("scope", ["read", "operator"])
def test_the_last_use_of_other_scopes_is_known_too(anna, factory, url, scope):
    key, sent = a_key(factory, anna if scope == "read" else None, scope=scope)
    assert http.get(f"{url}/onward/audit?tenant={anna.id}", headers=sent).status_code == 200
    until(lambda: last_used(factory, key)[0], "the key's last use is written")


def test_no_request_waits_for_the_last_use(anna, factory):
    """It is noted while the thread that writes is held up, and written once it goes on."""
    key, _ = a_key(factory, anna)
    notes, go_on = LastUse(), threading.Event()
    notes._pool.submit(go_on.wait)
    assert notes.note(factory, key, anna.id)
    assert last_used(factory, key)[0] is None
    go_on.set()
    until(lambda: last_used(factory, key)[0], "the key's last use is written")


def test_a_key_whose_last_use_cannot_be_written_opens_all_the_same(anna, factory, url):
    """Its row is locked all along."""
    key, sent = a_key(factory, anna)
    with factory.begin() as session:
        session.execute(select(ApiKey).where(ApiKey.id == key).with_for_update())
        assert http.get(f"{url}/models", headers=sent).status_code == 200
        file = http.post(
            f"{url}/files",
            headers=sent,
            files={"file": ("a.jsonl", json.dumps(CHOICE).encode())},
            data={"purpose": "fine-tune"},
        )
        assert file.status_code == 200, file.text
        assert session.scalar(select(ApiKey.last_used_at).where(ApiKey.id == key)) is None
