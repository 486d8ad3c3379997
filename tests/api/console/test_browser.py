"""The pages in Chromium: nothing that the policy forbids or axe finds, curves that grow, text that stays text."""

import pytest

from db import events
from db.tables import Job
from tests import chromium as browsers
from tests.api.examples import COMPLETION, choices, submit, upload

pytestmark = browsers.NEEDED
PLACES = ["jobs", "files", "account", "compare", "playground"]


@pytest.fixture(scope="module")
def chromium():
    with browsers.launched() as browser:
        yield browser


@pytest.fixture
def page(chromium, url, anna):
    """A page at anna's console, and what was wrong on it so far."""
    with browsers.signed_in(chromium, url.removesuffix("/v1"), anna.secret) as (opened, root, wrong):
        opened.root, opened.wrong = root, wrong
        yield opened


def clean(page):
    browsers.clean(page, page.wrong)


@pytest.mark.parametrize("place", PLACES)
def test_pages_are_clean(page, anna, place):
    submit(anna, upload(anna, *choices(8)))
    page.goto(page.root + place)
    clean(page)


def test_curves_grow_while_a_job_is_looked_at(page, anna, factory):
    job = submit(anna, upload(anna, *choices(8)), suffix="curve")

    def told(step, loss):
        with factory.begin() as session:
            events.metrics(session, session.get(Job, job.id), "measured", {"step": step, "train_loss": loss})

    told(1, 0.9)
    page.goto(f"{page.root}jobs/{job.id}")
    page.wait_for_selector(".u-legend")
    assert page.locator(".plot canvas").count() == 1
    with page.expect_response(
        lambda answer: answer.url.endswith("/points") and len(answer.json()["curves"]["train"]) == 2
    ):
        told(2, 0.5)
    page.get_by_label("Over").select_option("time")
    page.get_by_label("Smooth").select_option("0.8")
    page.wait_for_selector(".u-legend")
    clean(page)


def test_what_waits_is_followed_without_loading_the_page_again(page, anna):
    job = submit(anna, upload(anna, *choices(8)))
    page.goto(f"{page.root}jobs/{job.id}")
    page.wait_for_selector("text=queued")
    anna.openai.fine_tuning.jobs.cancel(job.id)
    page.wait_for_selector(".state.cancelled")
    assert page.get_by_role("button", name="Cancel").count() == 0
    clean(page)


def test_text_of_tenants_stays_text(page, anna):
    file = upload(anna, *[COMPLETION | {"prompt": "<img src=x onerror=alert(1)><script>alert(2)</script>"}] * 2)
    page.goto(f"{page.root}files/{file}?acts=answer")
    assert page.locator(".rows img, .rows script").count() == 0
    clean(page)


def test_jobs_are_marked_and_compared(page, anna, factory):
    made = upload(anna, *choices(8))
    for rate in (1e-3, 2e-3):
        job = submit(anna, made, {"learning_rate": rate}, suffix=f"r{int(rate * 1000)}")
        with factory.begin() as session:
            for step in range(3):
                data = {"step": step, "train_loss": 1.0 - step * rate * 100}
                events.metrics(session, session.get(Job, job.id), "measured", data)
    page.goto(f"{page.root}jobs")
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".u-legend")
    assert page.locator("text=method.learning_rate").count() == 1
    clean(page)
