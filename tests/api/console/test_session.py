"""Who may see the console: a key, once, in a cookie that no script reads; forms of the session's own pages alone."""

import httpx
import pytest

from api.console.rendering import POLICY
from api.console.session import COOKIE
from db.tenant import keys
from tests.api.examples import CHOICE, submit, upload

PAGES = ["jobs", "compare", "files", "account"]


@pytest.mark.parametrize("path", PAGES)
def test_without_a_key_every_page_asks_for_one(browser, path):
    answer = browser.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
    assert "Sign in" in browser.get("login").text
    asked = browser.get(path, **{"hx-request": "true"})
    assert (asked.status_code, asked.headers["hx-redirect"]) == (204, "/console/login")


@pytest.mark.parametrize("path", [*PAGES, "login"])
def test_every_answer_forbids_whatever_is_not_ours(at_annas, path):
    answer = at_annas.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert "<script>" not in answer.text
    assert " style=" not in answer.text
    assert "onclick" not in answer.text


def test_a_key_becomes_a_cookie_that_no_script_reads(browser, anna):
    answer = browser.http.post("login", data={"key": anna.secret})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= {part.strip() for part in cookie.split(";")}
    assert anna.secret not in browser.get("jobs").text
    assert browser.post("logout").headers["location"] == "/console/login"
    assert browser.get("jobs").status_code == 303


@pytest.mark.parametrize("key", ["", "sk-onward-wrong", "x" * 1000, "\x00", "ключ"])
def test_a_wrong_key_is_told_so_and_no_session(browser, key):
    answer = browser.http.post("login", data={"key": key})
    assert (answer.status_code, COOKIE in answer.headers.get("set-cookie", "")) == (401, False)
    assert "wrong" in answer.text


def test_a_form_is_read_under_a_limit_before_anybody_is_known(browser):
    plain, parts = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
    field = b'--b\r\ncontent-disposition: form-data; name="key"\r\n\r\n'
    long = [(b"key=" + b"x" * 100_000, plain), (b"&".join([b"a=1"] * 50_000), plain), (field + b"x" * 100_000, parts)]
    for body, kind in long:
        assert browser.http.post("login", content=body, headers={"content-type": kind}).status_code == 413
    many = browser.http.post("login", content=b"&".join([b"a=1"] * 500))
    assert many.status_code == 401


def test_a_session_ends_with_its_key(browser, anna, factory):
    with factory.begin() as session:
        row, secret = keys.create_key(session, anna.id)
        made = row.id
    browser.sign_in(secret)
    assert browser.get("jobs").status_code == 200
    with factory.begin() as session:
        keys.revoke_key(session, made)
    assert browser.get("jobs").headers["location"] == "/console/login"


def test_a_form_of_another_page_does_nothing(at_annas, anna):
    job = submit(anna, upload(anna, *[CHOICE] * 8))
    for form, headers in [
        ({}, {}),
        ({"csrf": "0" * 64}, {}),
        ({"csrf": at_annas.token}, {"sec-fetch-site": "cross-site"}),
    ]:
        answer = at_annas.http.post(f"jobs/{job.id}/cancel", data=form, headers=headers)
        assert answer.status_code == 403
    assert anna.openai.fine_tuning.jobs.retrieve(job.id).status == "queued"
    foreign = at_annas.http.post("login", data={"key": anna.secret}, headers={"sec-fetch-site": "cross-site"})
    assert foreign.status_code == 403


def test_a_key_that_reads_only_steers_nothing(browser, anna, factory):
    job = submit(anna, upload(anna, *[CHOICE] * 8))
    with factory.begin() as session:
        _, secret = keys.create_key(session, anna.id, scope="read")
    with httpx.Client(base_url=browser.http.base_url, cookies={COOKIE: secret}) as http:
        assert http.get(f"jobs/{job.id}").status_code == 200
        assert http.post(f"jobs/{job.id}/cancel", data={}).status_code == 403
    assert anna.openai.fine_tuning.jobs.retrieve(job.id).status == "queued"
