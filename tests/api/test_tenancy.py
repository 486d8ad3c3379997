"""Keys, and that nobody can see, name or use what is another tenant's: it looks as if it did not exist."""

import openai
import pytest

from db.tables import Adapter, ApiKey, Evaluation, File, Job
from db.tenant import keys
from tests.api.examples import CHOICE, choices, http, submit, upload

SHA = "0" * 64


@pytest.fixture(scope="module")
def job(anna):
    return submit(anna, upload(anna, *choices(3)), validation_file=upload(anna, CHOICE))


@pytest.fixture(scope="module")
def adapter(anna, factory, job):
    """What a worker's finish leaves, written by hand: this room has no worker."""
    with factory.begin() as session:
        session.add(
            File(
                id="file-result", tenant_id=anna.id, purpose="fine-tune-results", filename="a.tar", bytes=1, sha256=SHA
            )
        )
        session.flush()
        session.add(
            Evaluation(job_id=job.id, step=0, tenant_id=anna.id, loss=1.5, accuracy=0.5, rows=1, tokens=9, token=1)
        )
        session.add(
            Evaluation(job_id=job.id, step=4, tenant_id=anna.id, loss=0.5, accuracy=1, rows=1, tokens=9, token=1)
        )
        session.add(
            Adapter(
                id="adpt-1", tenant_id=anna.id, job_id=job.id, name="ft:tiny:a::1", step=4, sha256=SHA, path="/x",
                file_id="file-result", token=1,
            )
        )  # fmt: skip
        row = session.get(Job, job.id)
        row.state, row.step, row.finished_at = "succeeded", row.total_steps, row.created_at
        row.best_step, row.best_loss, row.scored_tokens = 4, 0.5, row.price_tokens
    return "ft:tiny:a::1"


def status(url, key, path="/models", method="GET"):
    headers = {} if key is None else {"Authorization": key}
    answer = http.request(method, f"{url}{path}", headers=headers)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code


def test_only_a_good_key_opens(anna, url):
    assert status(url, f"Bearer {anna.secret}") == 200
    for key in (None, "", "Bearer", f"Basic {anna.secret}", "Bearer sk-onward-" + "x" * 43):
        assert status(url, key) == 401
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0).models.list()


def test_every_route_of_a_tenants_rows_wants_a_key(url, settings):
    from api.app import create_app

    paths = create_app(settings).openapi()["paths"]
    guarded = [(path, verb) for path, verbs in paths.items() for verb in verbs if path.startswith("/v1")]
    assert len(guarded) >= 15
    for path, verb in guarded:
        assert status(url.removesuffix("/v1"), None, path.replace("{", "").replace("}", ""), verb.upper()) == 401


def test_a_revoked_key_no_longer_opens(anna, factory, url):
    with factory.begin() as session:
        key, secret = keys.create_key(session, anna.id)
    assert status(url, f"Bearer {secret}") == 200
    with factory.begin() as session:
        assert keys.revoke_key(session, key.id)
        assert secret.encode() not in session.get(ApiKey, key.id).hash
    assert status(url, f"Bearer {secret}") == 401
    assert status(url, f"Bearer {anna.secret}") == 200


def test_anothers_file_does_not_exist(ben, job):
    calls = (ben.openai.files.retrieve, ben.openai.files.content, ben.openai.files.delete, lambda f: submit(ben, f))
    for call in calls:
        with pytest.raises(openai.NotFoundError) as foreign:
            call(job.training_file)
        with pytest.raises(openai.NotFoundError) as unknown:
            call("file-none")
        same = str(foreign.value).replace(job.training_file, "file-none")
        assert same == str(unknown.value)
    own = upload(ben, CHOICE)
    with pytest.raises(openai.NotFoundError):
        submit(ben, own, validation_file=job.validation_file)
    assert job.training_file not in [f.id for f in ben.openai.files.list()]


def test_anothers_job_does_not_exist(ben, anna, job):
    jobs = ben.openai.fine_tuning.jobs
    calls = (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list)
    for call in calls:
        with pytest.raises(openai.NotFoundError) as foreign:
            call(job.id)
        with pytest.raises(openai.NotFoundError) as unknown:
            call("ftjob-none")
        assert str(foreign.value).replace(job.id, "ftjob-none") == str(unknown.value)
    assert list(jobs.list()) == []
    with pytest.raises(openai.BadRequestError, match="after"):
        jobs.list(after=job.id)
    assert anna.openai.fine_tuning.jobs.retrieve(job.id).status == "queued"


def test_an_adapter_is_its_tenants_alone(anna, ben, job, adapter):
    done = anna.openai.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.fine_tuned_model, done.result_files) == ("succeeded", adapter, ["file-result"])
    assert done.trained_tokens == done.model_extra["onward"]["price_tokens"]
    assert done.model_extra["onward"]["adapter"]["sha256"] == SHA
    assert adapter in [m.id for m in anna.openai.models.list()]
    assert anna.openai.models.retrieve(adapter).owned_by == anna.id
    assert [m.id for m in ben.openai.models.list()] == ["tiny"]
    assert ben.openai.models.retrieve("tiny").owned_by == "onward"
    for name in (adapter, "adpt-1", "ft:none", "../tiny"):
        with pytest.raises(openai.NotFoundError):
            ben.openai.models.retrieve(name)
    with pytest.raises(openai.NotFoundError):
        ben.openai.files.content("file-result")


def test_a_result_file_is_nothing_to_train_on(anna, adapter):
    with pytest.raises(openai.BadRequestError) as caught:
        submit(anna, "file-result")
    assert (caught.value.body["param"], caught.value.body["code"]) == ("training_file", "invalid_purpose")


def test_checkpoints_are_the_evaluated_steps(anna, job, adapter):
    found = anna.openai.fine_tuning.jobs.checkpoints.list(job.id)
    assert [c.step_number for c in found.data] == [4, 0]
    assert found.data[0].metrics.full_valid_loss == found.data[0].metrics.valid_loss == 0.5
    assert found.data[0].metrics.valid_mean_token_accuracy == 1
    assert found.data[0].fine_tuned_model_checkpoint.endswith(":ckpt-step-4")
    assert [c.step_number for c in anna.openai.fine_tuning.jobs.checkpoints.list(job.id, limit=1)] == [4, 0]
    assert list(anna.openai.fine_tuning.jobs.checkpoints.list(job.id, after=found.data[1].id)) == []
    with pytest.raises(openai.BadRequestError):
        anna.openai.fine_tuning.jobs.checkpoints.list(job.id, after="ftckpt-other-4")


def test_a_finished_job_cannot_be_steered(anna, job, adapter):
    jobs = anna.openai.fine_tuning.jobs
    for call in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.ConflictError) as caught:
            call(job.id)
        assert "succeeded" in caught.value.body["message"]
