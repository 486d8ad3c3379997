"""Jobs through the openai client: what is accepted, what it costs, how it is listed."""

import json
import time

import pytest
from openai import BadRequestError
from sqlalchemy import delete

from db import workers
from db.contract.rows.files import parse
from db.contract.sampling import minibatch, split
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import load
from db.contract.tokens.encoding import encode
from db.tables import Event, Job, Worker
from tests.api.examples import CHAT, choices, http, jsonl, submit, upload
from tests.db.inserted import a_worker


def scored(settings, rows) -> list[int]:
    base = load("tiny", settings)
    return [encode(base, row).tokens for row in parse([jsonl(*rows)])]


def test_an_accepted_job_is_in_the_database_and_says_its_exact_price(anna, factory, settings):
    train, valid = choices(5), choices(3)
    training, validation = upload(anna, *train), upload(anna, *valid)
    began = time.time()
    job = submit(
        anna,
        training,
        {"steps": 7, "batch_size": 2, "queries": 2, "eval_every": 3, "eval_rows": 2},
        validation_file=validation,
        seed=11,
        suffix="first-try",
        metadata={"team": "red"},
    )
    assert (job.object, job.status, job.seed, job.model) == ("fine_tuning.job", "queued", 11, "tiny")
    assert (job.training_file, job.validation_file) == (training, validation)
    assert (job.organization_id, job.metadata, job.result_files) == (anna.id, {"team": "red"}, [])
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.error) == (None, None, None, None)
    assert int(began) <= job.created_at <= time.time()
    assert job.hyperparameters.batch_size == 2
    ours = job.model_extra["onward"]
    spec = JobSpec.model_validate(ours["spec"])
    assert (spec.steps, spec.adapter.rank, spec.method.queries, spec.suffix) == (7, 2, 2, "first-try")
    counts = scored(settings, train)
    walked = sum(counts[row] for step in range(7) for row in minibatch(11, step, 5, 2))
    evaluated = sum(scored(settings, valid)[:2]) * len({0, 3, 6, 7})
    assert ours["price"] == {"training": 4 * walked, "evaluation": evaluated}
    assert ours["price_tokens"] == 4 * walked + evaluated
    assert (ours["step"], ours["total_steps"], ours["scored_tokens"], ours["best_step"]) == (0, 7, 0, None)
    with factory.begin() as session:
        row = session.get(Job, job.id)
        assert JobSpec.model_validate(row.spec) == spec
        assert (row.tenant_id, row.price_tokens, row.state) == (anna.id, ours["price_tokens"], "queued")
    assert anna.openai.fine_tuning.jobs.retrieve(job.id) == job


def lines_of(job, who) -> list[tuple[str, str]]:
    return [(e.level, e.message) for e in who.openai.fine_tuning.jobs.list_events(job.id).data[::-1]]


def test_a_tenth_of_the_rows_is_held_out_and_the_job_says_so(anna, settings):
    rows = choices(50)
    training = upload(anna, *rows)
    job = submit(anna, training, {"steps": 3, "batch_size": 4, "eval_every": 2}, seed=11)
    ours, counts = job.model_extra["onward"], scored(settings, rows)
    trained, kept = split(11, 50, 5)
    walked = sum(counts[trained[row]] for step in range(3) for row in minibatch(11, step, 45, 4))
    assert ours["price"] == {"training": 2 * walked, "evaluation": 3 * sum(counts[row] for row in kept)}
    assert ours["held_out"] == {"rows": 5, "of": 50}
    assert (ours["spec"]["held_out"], ours["spec"]["eval_rows"], ours["repeated_rows"]) == (5, 5, 47)
    said = lines_of(job, anna)
    assert any(level == "info" and message.startswith("5 of 50 rows are held out") for level, message in said)
    assert any(level == "warn" and message.startswith("47 of 50 rows repeat") for level, message in said)
    assert anna.openai.files.retrieve(training).model_extra["onward"]["repeated_rows"] == 47
    told_not_to = submit(anna, training, {"held_out": 0}).model_extra["onward"]
    assert (told_not_to["held_out"], told_not_to["spec"]["eval_rows"]) == (None, 0)
    assert not any("held out" in message for _, message in lines_of(submit(anna, upload(anna, *rows[:3])), anna))


def test_an_answer_is_held_out_and_priced_as_well(anna):
    training = upload(anna, *({**row, "prompt": f"film {i}: {row['prompt']}"} for i, row in enumerate(choices(12))))
    job = submit(anna, training, {"activation": "answer", "held_out": 5, "eval_every": 2, "steps": 2})
    spec = job.model_extra["onward"]["spec"]
    assert (spec["adapter"]["activation"], spec["held_out"], spec["eval_rows"]) == ("answer", 5, 5)
    assert job.model_extra["onward"]["price"]["evaluation"] > 0


def test_a_ten_row_chat_file_has_a_hundred_epochs_at_most(anna):
    spec = anna.openai.fine_tuning.jobs.create(model="tiny", training_file=upload(anna, *[CHAT] * 10)).model_extra[
        "onward"
    ]["spec"]
    assert (spec["held_out"], spec["batch_size"], spec["steps"]) == (0, 10, 100)


def test_the_answer_says_in_how_many_seconds_it_ends(anna, factory):
    training = upload(anna, *choices(5))
    with factory.begin() as session:
        worker = a_worker(session, "tiny")
        workers.beat(session, worker, state="ready", rate=1000.0)
    try:
        made = submit(anna, training)
        found = anna.openai.fine_tuning.jobs.retrieve(made.id).model_extra["onward"]
        assert made.model_extra["onward"]["estimate"]["measured"] is True
        assert found["estimate"] == made.model_extra["onward"]["estimate"]
        assert found["estimate"]["seconds"] >= round(found["price_tokens"] / 1000, 1)
        with factory.begin() as session:
            workers.leave(session, worker)
        assert anna.openai.fine_tuning.jobs.retrieve(made.id).model_extra["onward"]["estimate"]["measured"] is False
    finally:
        with factory.begin() as session:
            session.execute(delete(Worker).where(Worker.id == worker))


@pytest.mark.parametrize(
    "sent, resolved",
    [
        ({"hyperparameters": {"n_epochs": 3}}, {"steps": 6}),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}}, {"steps": 4}),
        ({"hyperparameters": {"n_epochs": 3, "batch_size": 4}}, {"steps": 3, "batch_size": 4}),
        ({"hyperparameters": {"n_epochs": "auto", "batch_size": "auto"}, "onward": {"steps": 9}}, {"steps": 9}),
        ({"hyperparameters": {"n_epochs": 3}, "onward": {"steps": 9}}, {"steps": 9}),
    ],
)
def test_openai_hyperparameters_are_honoured(anna, sent, resolved):
    training = upload(anna, *choices(4))
    fields = {"hyperparameters", "method"} & set(sent)
    batch = {} if "batch_size" in sent.get("hyperparameters", {}) else {"batch_size": 2}
    job = anna.openai.fine_tuning.jobs.create(
        model="tiny",
        training_file=training,
        extra_body={"onward": {"rank": 2, **batch, **sent.get("onward", {})}},
        **{name: sent[name] for name in fields},
    )
    spec = job.model_extra["onward"]["spec"]
    assert {name: spec[name] for name in resolved} == resolved


def test_the_multiplier_scales_the_rate_that_auto_means(anna):
    training = upload(anna, *choices(4))
    plain = submit(anna, training, {"learning_rate": "auto"})
    scaled = submit(anna, training, hyperparameters={"learning_rate_multiplier": 0.5})
    rate = [job.model_extra["onward"]["spec"]["method"]["learning_rate"] for job in (plain, scaled)]
    assert rate[1] == 0.5 * rate[0]
    assert scaled.hyperparameters.learning_rate_multiplier == 0.5


def test_auto_everywhere_equals_nothing_at_all(anna):
    training = upload(anna, CHAT, CHAT)
    names = ("method", "objective", "rank", "alpha", "targets", "steps", "batch_size", "eps", "queries", "schedule")
    bare = anna.openai.fine_tuning.jobs.create(model="tiny", training_file=training, seed=1)
    auto = anna.openai.fine_tuning.jobs.create(
        model="tiny", training_file=training, seed=1, extra_body={"onward": dict.fromkeys(names, "auto")}
    )
    assert bare.model_extra["onward"]["spec"] == auto.model_extra["onward"]["spec"]
    assert bare.model_extra["onward"]["spec"]["objective"] == "lm"


def test_a_method_is_a_name_with_settings_beside_it_or_an_object(anna):
    training, plain = upload(anna, *choices(4)), {"steps": 4, "rank": 4, "seed": 5, "eps": 1e-2}
    settings = {"nu": 7, "window_rank": 1, "queries": "auto", "schedule": None}
    flat = submit(anna, training, {**plain, "method": "lozo", **settings})
    for method, beside in (({"name": "lozo", **settings}, {}), ({"name": "lozo", "nu": 7}, settings)):
        nested = submit(anna, training, {**plain, "method": method, **beside})
        assert nested.model_extra["onward"]["spec"] == flat.model_extra["onward"]["spec"]
    assert "nu" not in submit(anna, training, plain).model_extra["onward"]["spec"]["method"]


def test_a_lozo_job_keeps_its_settings(anna):
    asked = {"method": "lozo", "nu": 7, "window_rank": 1, "refresh": "freeze", "targets": ["q_proj", "fc"], "rank": 4}
    job = submit(anna, upload(anna, *choices(4)), asked | {"targets": ["q_proj", "down_proj"]})
    method = job.model_extra["onward"]["spec"]["method"]
    assert (method["name"], method["nu"], method["window_rank"], method["refresh"]) == ("lozo", 7, 1, "freeze")
    assert job.model_extra["onward"]["spec"]["adapter"]["targets"] == ["q_proj", "down_proj"]


def test_a_job_no_worker_serves_says_so_in_its_events(anna, factory):
    job = submit(anna, upload(anna, *choices(2)))
    events = list(anna.openai.fine_tuning.jobs.list_events(job.id))
    assert all(e.object == "fine_tuning.job.event" and e.type == "message" for e in events)
    assert any(e.level == "warn" and "tiny" in e.message for e in events)
    with factory.begin() as session:
        for i in range(5):
            session.add(Event(job_id=job.id, tenant_id=anna.id, message=f"more {i}", data={"step": i}))
    pages = anna.openai.fine_tuning.jobs.list_events(job.id, limit=2)
    assert [e.message for e in pages.data] == ["more 4", "more 3"]
    assert pages.data[0].data == {"step": 4}
    assert pages.has_more is True
    everything = [e.id for e in anna.openai.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert everything == [f"ftevent-{job.id.partition('-')[2]}-{n}" for n in range(len(events) + 5, 0, -1)]


def test_a_cursor_of_events_is_of_this_job(anna, url):
    training = upload(anna, *choices(2))
    job, other = submit(anna, training), submit(anna, training)
    theirs = anna.openai.fine_tuning.jobs.list_events(other.id).data[0].id
    for cursor in (theirs, "ftevent-1", f"ftevent-{job.id}-1", theirs + "0" * 20):
        with pytest.raises(BadRequestError) as refused:
            anna.openai.fine_tuning.jobs.list_events(job.id, after=cursor)
        assert refused.value.param == "after"


def test_jobs_are_listed_newest_first_in_pages_and_by_metadata(ben):
    training = upload(ben, *choices(2))
    made = [submit(ben, training, metadata={"n": str(i % 2), "all": "yes"}).id for i in range(5)]
    first = ben.openai.fine_tuning.jobs.list(limit=2)
    assert [job.id for job in first.data] == made[:2:-1]
    assert [job.id for job in ben.openai.fine_tuning.jobs.list(limit=2)] == made[::-1]
    odd = ben.openai.fine_tuning.jobs.list(metadata={"n": "1", "all": "yes"})
    assert [job.id for job in odd] == [made[3], made[1]]
    assert list(ben.openai.fine_tuning.jobs.list(metadata={"n": "2"})) == []


def test_chat_prompts_are_priced_with_the_template(anna, settings):
    job = submit(anna, upload(anna, CHAT), {"steps": 1, "batch_size": 1, "queries": 1, "estimator": "one_sided"})
    assert job.model_extra["onward"]["price_tokens"] == 2 * scored(settings, [CHAT])[0]


def test_a_budget_that_fits_is_kept_and_one_below_the_price_says_how_far_it_goes(anna, url):

    training = upload(anna, *choices(3))
    price = submit(anna, training, seed=3).model_extra["onward"]["price_tokens"]
    assert (
        submit(anna, training, {"token_budget": price}, seed=3).model_extra["onward"]["spec"]["token_budget"] == price
    )
    body = {
        "model": "tiny",
        "training_file": training,
        "seed": 3,
        "onward": {"steps": 4, "batch_size": 2, "rank": 2, "token_budget": price - 1},
    }
    headers = {"Authorization": f"Bearer {anna.secret}"}
    answer = http.post(f"{url}/fine_tuning/jobs", headers=headers, content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "onward.token_budget"
    assert "3 of its 4 steps" in answer.json()["error"]["message"]
