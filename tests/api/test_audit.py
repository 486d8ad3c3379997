"""Every route that changes something leaves one entry of who did what, by the OpenAPI document: new ones too."""

import json
import re

import pytest
from sqlalchemy import func, select

from api.app import create_app
from api.auth import ASKS, CHATS
from db.ids import new_id
from db.tables import Adapter, Audit, File, Job
from db.tenant import keys
from tests.api.conftest import client
from tests.api.examples import CHOICE, choices, http, jsonl, submit, upload

KINDS = {
    "files": "file",
    "jobs": "job",
    "models": "adapter",
    "uploads": "upload",
}  # a collection's segment, and what the log says
SECRETS = ("sk-onward-", CHOICE["prompt"])


def a_job(anna, factory, condition):
    """A job that the route's verb can be asked of."""
    job = submit(anna, upload(anna, *choices(3)))
    if condition == "resume":
        anna.openai.fine_tuning.jobs.pause(job.id)
    return job.id


def an_adapter(anna, factory, _):
    """What a worker's finish leaves, written by hand: this room has no worker."""
    job, file, name = submit(anna, upload(anna, *choices(3))), new_id("file-"), new_id("ft:tiny:a::")
    with factory.begin() as session:
        result = {"purpose": "fine-tune-results", "filename": "a.tar", "bytes": 1, "sha256": "0" * 64}
        session.add(File(id=file, tenant_id=anna.id, **result))
        session.flush()
        row = session.get(Job, job.id)
        row.state, row.step, row.finished_at = "succeeded", row.total_steps, row.created_at
        about = {"job_id": job.id, "step": 4, "sha256": "0" * 64, "path": "/x", "file_id": file, "token": 1}
        session.add(Adapter(id=new_id("adpt-"), tenant_id=anna.id, name=name, **about))
    return name


# How to name what a path's parameter stands for, and what to send to a collection. A route unknown to these fails.
def an_upload(who, *_):
    made = who.openai.uploads.create(
        filename="a.jsonl", purpose="fine-tune", bytes=len(jsonl(CHOICE)), mime_type="application/jsonl"
    )
    UPLOADS.append(made.id)
    return made.id


def its_part(who):
    return {"json": {"part_ids": [who.openai.uploads.parts.create(UPLOADS[-1], data=jsonl(CHOICE)).id]}}


UPLOADS: list[str] = []
NAMED = {
    "upload_id": an_upload,
    "file_id": lambda anna, *_: upload(anna, CHOICE),
    "job_id": a_job,
    "name": an_adapter,
    "model": an_adapter,
    "adapter": an_adapter,
}
BODIES = {
    "/v1/uploads": lambda _: {
        "json": {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "application/jsonl"}
    },
    "/v1/uploads/{upload_id}/parts": lambda _: {"files": {"data": ("a", jsonl(CHOICE))}},
    "/v1/uploads/{upload_id}/complete": its_part,
    "/v1/files": lambda _: {
        "files": {"file": ("a.jsonl", jsonl(CHOICE))},
        "data": {"purpose": "fine-tune"},
    },
    "/v1/fine_tuning/jobs": lambda anna: {
        "json": {
            "model": "tiny",
            "training_file": upload(anna, *choices(3)),
            "onward": {"steps": 4, "batch_size": 2, "rank": 2},
        }
    },
}


# By POST, and yet nothing is changed: tests/api/test_receipts.py, tests/api/chat.
ASKED = set(ASKS) | CHATS


def changing(app):
    paths = app.openapi()["paths"]
    routes = ((verb.upper(), path) for path, verbs in paths.items() for verb in verbs if verb != "get")
    return sorted(route for route in routes if route[1] not in ASKED)


def action(verb, path):
    """What the entry must be called: POST /v1/files is file.create, POST …/jobs/{job_id}/cancel is job.cancel."""
    *above, last = [part for part in path.split("/") if part]
    if last.startswith("{"):
        return f"{KINDS[above[-1]]}.{'delete' if verb == 'DELETE' else 'change'}"
    if above[-1].startswith("{"):
        return f"{KINDS[above[-2]]}.{last}"
    return f"{KINDS[last]}.create"


def entries(factory):
    with factory.begin() as session:
        return {row.id: row for row in session.scalars(select(Audit))}


def test_every_route_that_changes_something_leaves_one_entry(anna, factory, url, settings):
    routes = changing(create_app(settings))
    assert len(routes) >= 6
    for verb, path in routes:
        wanted = action(verb, path)
        parameters = re.findall(r"\{(\w+)(?::\w+)?\}", path)
        assert set(parameters) <= set(NAMED), f"{verb} {path}: say in NAMED how to name it"
        named = {p: NAMED[p](anna, factory, wanted.partition(".")[2]) for p in parameters}
        sent = BODIES[path](anna) if path in BODIES else {}
        before, request = entries(factory), new_id("req-")
        headers = {"authorization": f"Bearer {anna.secret}", "x-request-id": request}
        at = url.removesuffix("/v1") + re.sub(r":\w+(?=\})", "", path).format(**named)
        answer = http.request(verb, at, headers=headers, **sent)
        assert answer.is_success, (verb, path, answer.text)
        (new,) = [row for key, row in entries(factory).items() if key not in before]
        found = answer.json().get("id")
        assert (new.tenant_id, new.action, new.request) == (anna.id, wanted, request)
        assert new.object == found
        assert new.actor == key_of(anna, factory)
        assert not [s for s in SECRETS if s in json.dumps(new.data, ensure_ascii=False)]


def key_of(who, factory):
    with factory.begin() as session:
        return keys.authenticate(session, who.secret).key


def test_what_is_refused_or_asked_again_changes_nothing_and_leaves_nothing(anna, ben, factory, url):
    training = upload(anna, *choices(3))
    first = submit(anna, training, extra_headers={"Idempotency-Key": "once"})
    before = entries(factory)
    assert submit(anna, training, extra_headers={"Idempotency-Key": "once"}).id == first.id
    bearer = {"authorization": f"Bearer {ben.secret}"}
    for verb, path in (("POST", f"/fine_tuning/jobs/{first.id}/cancel"), ("DELETE", f"/files/{training}")):
        assert http.request(verb, url + path, headers=bearer).status_code == 404
    bad = http.post(url + "/fine_tuning/jobs", headers=bearer, json={"model": "tiny"})
    assert bad.status_code == 400
    assert entries(factory).keys() == before.keys()


def test_a_tenant_reads_its_own_entries_page_by_page(factory, url):
    carla, dora = client(factory, url, "carla"), client(factory, url, "dora")
    files = [upload(carla, CHOICE) for _ in range(3)]
    upload(dora, CHOICE)
    mine = {"authorization": f"Bearer {carla.secret}"}
    first = http.get(f"{url}/onward/audit?limit=2", headers=mine).json()
    rest = http.get(f"{url}/onward/audit?limit=100&after={first['last_id']}", headers=mine).json()
    assert (len(first["data"]), first["has_more"], rest["has_more"]) == (2, True, False)
    whole = first["data"] + rest["data"]
    assert [e["subject"] for e in whole if e["action"] == "file.create"] == files[::-1]
    assert [e["action"] for e in whole] == ["file.create"] * 3 + ["key.create", "tenant.create"]
    assert {e["tenant"] for e in whole} == {carla.id}
    unknown = http.get(f"{url}/onward/audit?after=audit-none", headers=mine)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "after")
    theirs = http.get(f"{url}/onward/audit?tenant={dora.id}", headers=mine)
    nobodys = http.get(f"{url}/onward/audit?tenant=ten_none", headers=mine)
    assert theirs.status_code == nobodys.status_code == 403
    assert theirs.json() == nobodys.json()


def test_an_operators_key_reads_the_entries_of_the_tenant_it_names(anna, factory, url):
    with factory.begin() as session:
        row, secret = keys.create_key(session, None, scope="operator")
    operator = {"authorization": f"Bearer {secret}"}
    file = upload(anna, CHOICE)
    found = http.get(f"{url}/onward/audit?tenant={anna.id}&limit=1", headers=operator).json()["data"]
    assert [(e["subject"], e["actor"]) for e in found] == [(file, key_of(anna, factory))]
    unsaid = http.get(f"{url}/onward/audit", headers=operator)
    assert (unsaid.status_code, unsaid.json()["error"]["param"]) == (400, "tenant")
    with factory.begin() as session:
        made = session.scalar(select(Audit).where(Audit.object == row.id))
    assert (made.tenant_id, made.action, made.data["scope"]) == (None, "key.create", "operator")


@pytest.mark.parametrize("fails", [True, False])
def test_an_entry_is_committed_with_its_change_or_not_at_all(anna, factory, fails):
    from db import audit

    name = new_id("job-")
    try:
        with factory.begin() as session, audit.acting("key_x", "req_x"):
            audit.write(session, anna.id, "job.cancel", name)
            assert not fails, "as a change would"
    except AssertionError:
        pass
    with factory.begin() as session:
        found = session.scalar(select(func.count()).where(Audit.object == name, Audit.actor == "key_x"))
    assert found == int(not fails)
