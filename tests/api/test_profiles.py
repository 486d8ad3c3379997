"""Profiles through the API: every tenant reads them, none writes one, and a job names one that fits it or none."""

import httpx
import pytest

from db import profiles
from db.contract.tokens.base_model import open_base
from db.tables import Job
from tests.api.examples import choices, submit, upload
from tests.profiled import KINDS, made, sha256
from worker.runs import profiles as files
from worker.types import Layout, Module

SHAPE = {"steps": 3, "rank": 2, "targets": ["q_proj"]}


def layout(base_folder, rank=2, targets=("q_proj",)):
    base = open_base("tiny", str(base_folder))
    return Layout(rank, 2.0 * rank, tuple(Module(*one) for one in base.select(targets)))


@pytest.fixture(scope="module")
def kept(factory, base_folder):
    """One of each kind, and others that no job of SHAPE may name."""
    base = open_base("tiny", str(base_folder)).fingerprint
    found = {kind: made(kind, layout(base_folder), base) for kind in ("factors", "mask", "basis", "mlp")}
    found["wide"] = made("mask", layout(base_folder, rank=3), base)
    found["elsewhere"] = made("mask", layout(base_folder, targets=("v_proj",)), base)
    found["foreign"] = made("mask", layout(base_folder), "0" * 64)
    with factory.begin() as session:
        for data in found.values():
            read = files.read(data)
            assert profiles.add(session, read.of, read.told, data)
            assert not profiles.add(session, read.of, read.told, data)
    return {name: sha256(data) for name, data in found.items()}


@pytest.fixture(scope="module")
def training(anna):
    return upload(anna, *choices(4))


def ask(url, who, path="", **params):
    headers = {"authorization": f"Bearer {who.secret}"}
    return httpx.get(f"{url}/onward/profiles{path}", headers=headers, params=params)


def test_every_tenant_reads_them(url, anna, ben, kept, base_folder):
    for who in (anna, ben):
        listed = ask(url, who, model="tiny").json()["data"]
        assert {kept[name] for name in ("factors", "mask", "basis", "mlp", "wide")} <= {one["id"] for one in listed}
        assert kept["foreign"] not in {one["id"] for one in listed}
        assert kept["foreign"] in {one["id"] for one in ask(url, who).json()["data"]}
        one = ask(url, who, f"/{kept['mask']}").json()
        assert (one["kind"], one["rank"], one["targets"], one["about"]) == ("mask", 2, ["q_proj"], {"by": "tests"})
        answer = ask(url, who, f"/{kept['mask']}/content")
        assert answer.content == made("mask", layout(base_folder), open_base("tiny", str(base_folder)).fingerprint)


def test_what_is_not_there_is_404_and_a_stranger_gets_nothing(url, anna, kept):
    for path in ("/" + "f" * 64, "/nohash", "/" + "f" * 64 + "/content", "/%00"):
        answer = ask(url, anna, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "profile_not_found")
    assert ask(url, anna, model="nope").json()["error"]["code"] == "model_not_found"
    assert httpx.get(f"{url}/onward/profiles").status_code == 401
    for verb in ("POST", "DELETE", "PUT"):
        answer = httpx.request(verb, f"{url}/onward/profiles", headers={"authorization": f"Bearer {anna.secret}"})
        assert answer.status_code == 405


@pytest.mark.parametrize("name", KINDS)
def test_a_job_names_one_that_fits(anna, ben, kept, factory, training, name):
    job = submit(anna, training, {**SHAPE, "method": {"name": name, "profile": kept[KINDS[name]]}})
    with factory.begin() as session:
        assert session.get_one(Job, job.id).spec["method"]["profile"] == kept[KINDS[name]]
    theirs = submit(ben, upload(ben, *choices(4)), {**SHAPE, "method": name, "profile": kept[KINDS[name]]})
    assert theirs.status in ("queued", "validating_files")


REFUSED = [
    ({"method": "senszoq"}, "needs the hash of a profile of kind 'mask'", "onward.profile"),
    ({"method": "senszoq", "profile": "auto"}, "needs the hash of a profile", "onward.profile"),
    ({"method": {"name": "senszoq", "profile": "f" * 64}}, "there is no profile ffffffffffff", "onward.method.profile"),
    ({"method": "senszoq", "profile": "nohash"}, "should match pattern", "onward.profile"),
    ({"method": "senszoq", "profile": "\0"}, "should match pattern", "onward.profile"),
    ({"method": "senszoq", "profile": "basis"}, "is of kind 'basis': this method reads 'mask'", "onward.profile"),
    ({"method": "zo_finetuner", "profile": "mask"}, "this method reads 'mlp' or 'factors'", "onward.profile"),
    ({"method": "senszoq", "profile": "wide"}, "another rank, or on other modules", "onward.profile"),
    ({"method": "senszoq", "profile": "elsewhere"}, "another rank, or on other modules", "onward.profile"),
    ({"method": "senszoq", "profile": "foreign"}, "made for another base than tiny", "onward.profile"),
    ({"method": "mezo", "profile": "mask"}, "a setting of the method", "onward.profile"),
    ({"profile": "mask"}, "a setting of the method", "onward.profile"),
    ({"method": "activation_basis", "profile": "basis", "a_factor": 0.5}, "a setting of the method", "onward.a_factor"),
    (
        {"method": "activation_basis", "profile": "basis", "optimizer": "momentum"},
        "'sgd' or 'adam'",
        "onward.optimizer",
    ),
]


@pytest.mark.parametrize("asked, said, param", REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_no_job_can_name_is_refused_before_anything_is_queued(url, anna, kept, training, asked, said, param):
    asked = {**asked, **({"profile": kept.get(asked["profile"], asked["profile"])} if "profile" in asked else {})}
    body = {"model": "tiny", "training_file": training, "onward": {**SHAPE, **asked}}
    headers = {"authorization": f"Bearer {anna.secret}"}
    before = httpx.get(f"{url}/fine_tuning/jobs", headers=headers).json()["data"]
    answer = httpx.post(f"{url}/fine_tuning/jobs", headers=headers, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert said in error["message"]
    after = httpx.get(f"{url}/fine_tuning/jobs", headers=headers).json()["data"]
    assert [job["id"] for job in after] == [job["id"] for job in before]
