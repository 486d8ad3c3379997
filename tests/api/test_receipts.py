"""A tenant asks the installation whether a receipt is its own: nothing but the rows and the keys answers."""

import json

import pytest
from sqlalchemy import delete, func, select

from db.contract.receipts import form, signing
from db.tables import Audit, File, Result
from db.tenant import keys
from tests.api.conftest import serving
from tests.api.examples import http
from tests.cli.trained import train
from tests.worker.adapters.received import KEY, OTHER_KEY
from worker.slices.receipts import Receipts

PUBLIC, OTHER = signing.public_of(KEY), signing.public_of(OTHER_KEY)


@pytest.fixture(scope="module")
def settings(settings):
    """The second key is the one before a rotation."""
    return settings.model_copy(update={"receipt_signers": f"{PUBLIC},{OTHER}"})


@pytest.fixture(scope="module")
def made(anna, factory, base_folder, tmp_path_factory):
    """A finished job of anna's and its receipt."""
    job = train(anna, factory, base_folder, tmp_path_factory.mktemp("home"), Receipts({"dtype": "float32"}, KEY))
    return job, receipt(factory, job.id)


def receipt(factory, job_id):
    from db import files

    with factory.begin() as session:
        kept = select(Result.file_id).where(Result.job_id == job_id, Result.kind == "receipt")
        return b"".join(files.read(session, session.scalars(kept).one()))


def asked(url, secret, data):
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    return http.post(f"{url}/onward/receipts/verify", headers=headers, content=data)


def resealed(data, secret, **changes):
    """The receipt with other contents, signed again where there is a key."""
    found = form.read(data)
    payload = form.canonical(json.loads(found.payload) | changes)
    return form.sealed(payload, [signing.signed(payload, secret)] if secret else [])


def test_the_public_keys_are_told(anna, url):
    found = http.get(f"{url}/onward/receipt_keys", headers={"authorization": f"Bearer {anna.secret}"}).json()
    assert [(one["id"], one["public"]) for one in found["data"]] == [
        (signing.key_id(PUBLIC), PUBLIC), (signing.key_id(OTHER), OTHER),
    ]  # fmt: skip


def test_a_receipt_of_ones_own_is_vouched_for(anna, url, made, factory):
    job, data = made
    with factory.begin() as session:
        before = session.scalar(select(func.count()).select_from(Audit))
        _, reader = keys.create_key(session, anna.id, scope="read")
        after_key = session.scalar(select(func.count()).select_from(Audit))
    said = asked(url, anna.secret, data).json()
    assert said == {
        "object": "receipt.verification", "valid": True, "reason": None, "job": job.id, "adapter": job.fine_tuned_model,
        "sha256": job.onward["adapter"]["sha256"], "signature": "valid", "key": signing.key_id(PUBLIC),
        "recorded": True, "stored": True,
    }  # fmt: skip
    assert asked(url, reader, data).json() == said, "a key that may only read may ask"
    with factory.begin() as session:
        assert session.scalar(select(func.count()).select_from(Audit)) == after_key >= before


def test_another_tenants_receipt_looks_as_if_it_did_not_exist(ben, url, made):
    _, data = made
    said = asked(url, ben.secret, data).json()
    assert (said["valid"], said["recorded"], said["stored"]) == (False, False, None)
    unknown = asked(url, ben.secret, resealed(data, KEY, jobs=elsewhere(data))).json()
    assert said | {"job": ""} == unknown | {"job": ""}


def elsewhere(data):
    (job,) = json.loads(data)["jobs"]
    return [job | {"job": "ftjob-none"}]


def test_what_was_changed_is_named(anna, url, made):
    _, data = made
    lying = json.loads(data)["adapter"] | {"sha256": "0" * 64}

    def said(other):
        answer = asked(url, anna.secret, other)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert not found["valid"]
        return found["signature"], found["recorded"], found["stored"]

    assert said(resealed(data, KEY, versions={})) == ("valid", True, False)
    assert said(resealed(data, OTHER_KEY, adapter=lying)) == ("valid", False, False)
    assert said(resealed(data, "33" * 32)) == ("unknown_key", True, False)
    assert said(resealed(data, None)) == ("unsigned", True, False)
    broken = json.loads(data)
    broken["versions"] = {}
    assert said(form.canonical(broken) + b"\n") == ("signature", True, False)


@pytest.mark.parametrize(("data", "code"), [
    (b"", "receipt_not_json"), (b"{}", "receipt_not_canonical"), (b"{}\n", "receipt_fields"),
    (b"\xff", "receipt_not_json"), (b"[" * 10_000, "receipt_not_json"), (b'{"adapter":', "receipt_truncated"),
])  # fmt: skip
def test_what_is_no_receipt_is_refused_by_name(anna, url, data, code):
    answer = asked(url, anna.secret, data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_a_receipt_is_no_larger_than_any_body(anna, url, settings):
    assert asked(url, anna.secret, b" " * (settings.max_request_bytes + 1)).status_code == 413


def test_without_keys_the_kept_bytes_vouch(anna, factory, made, settings):
    """An installation that signs nothing still knows what it made."""
    _, data = made
    unsigned = settings.model_copy(update={"receipt_signers": ""})
    with serving(unsigned) as url:
        headers = {"authorization": f"Bearer {anna.secret}"}
        assert http.get(f"{url}/onward/receipt_keys", headers=headers).json()["data"] == []
        assert asked(url, anna.secret, data).json()["signature"] == "unknown_key"
        bare = resealed(data, None)
        assert asked(url, anna.secret, bare).json()["valid"] is False


def test_a_receipt_that_was_kept_unsigned_is_vouched_for(anna, factory, url, base_folder, tmp_path):
    job = train(anna, factory, base_folder, tmp_path, Receipts())
    data = receipt(factory, job.id)
    said = asked(url, anna.secret, data).json()
    assert (said["valid"], said["signature"], said["stored"]) == (True, "unsigned", True)
    with factory.begin() as session:
        session.execute(delete(Result).where(Result.job_id == job.id))
    said = asked(url, anna.secret, data).json()
    assert (said["valid"], said["recorded"], said["stored"]) == (False, True, None)
    assert "not signed" in said["reason"]
    with factory.begin() as session:
        assert session.scalar(select(func.count()).select_from(File).where(File.filename == "receipt.json"))
