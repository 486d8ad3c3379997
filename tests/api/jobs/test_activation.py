"""Jobs whose adapter acts on the answer only: what `activation` and `invocation` come to, what that costs, and every
way it is refused."""

from dataclasses import replace

import pytest

from api.token_counts import counting
from db.contract.rows.files import parse
from db.contract.sampling import minibatch
from db.contract.spec import JobSpec
from db.contract.tokens.architectures import ARCHITECTURES
from db.contract.tokens.base_model import load
from db.contract.tokens.encoding import encode
from db.tables import Adapter, File, Job
from tests.api.conftest import client
from tests.api.examples import CHAT, http, jsonl, submit, upload

LONG = "the film was a great and moving story about a small town. " * 3

SAYS_IT = (" good: yes", " bad")


def rated(count: int, end: str = "\nRating:", choices: tuple[str, str] = (" good", " bad")) -> list[dict]:
    """Rows of different lengths, whose prompts are long and end alike."""
    return [{"prompt": LONG + "story " * i + end, "choices": list(choices), "label": i % 2} for i in range(count)]


@pytest.fixture(scope="module")
def base(settings):
    return load("tiny", settings)


@pytest.fixture(scope="module")
def training(anna):
    return upload(anna, *rated(5))


@pytest.fixture
def refused(anna, url, factory):
    """Posts a job that must be refused: the error, in OpenAI's shape; no job is made."""

    def send(training_file, onward, **fields):
        with factory.begin() as session:
            before = session.query(Job).count()
        body = {"model": "tiny", "training_file": training_file, "onward": {"steps": 4, "rank": 2, **onward}, **fields}
        headers = {"Authorization": f"Bearer {anna.secret}"}
        answer = http.post(f"{url}/fine_tuning/jobs", headers=headers, json=body)
        assert answer.status_code == 400, answer.text
        with factory.begin() as session:
            assert session.query(Job).count() == before
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        return error

    return send


def ours(job):
    return job.model_extra["onward"]


def acts(job) -> tuple[str, list[int], str | None]:
    adapter = ours(job)["spec"]["adapter"]
    return adapter["activation"], adapter["invocation"], ours(job)["invocation"]


def ids(base, text: str) -> list[int]:
    return base.tokenizer.encode(text, add_special_tokens=False).ids


def test_without_a_word_the_adapter_acts_on_all_tokens(anna, training):
    for onward in ({}, {"activation": None}, {"activation": "all"}, {"activation": "all", "invocation": "auto"}):
        assert acts(submit(anna, training, onward)) == ("all", [], None)


def test_answer_takes_the_common_end_or_the_text(anna, training, base):
    end = ids(base, "\nRating:")[-4:]
    for onward in ({}, {"invocation": None}, {"invocation": "auto"}):
        job = submit(anna, training, {"activation": "answer", **onward})
        assert acts(job) == ("answer", end, base.tokenizer.decode(end))
    for text in ("Rating:", ":", "\nRating:"):
        assert acts(submit(anna, training, {"activation": "answer", "invocation": text})) == (
            "answer", ids(base, text), text,
        )  # fmt: skip
    assert anna.openai.fine_tuning.jobs.retrieve(job.id) == job


def test_the_price_is_every_visit_and_every_prompt_once(anna, settings, base, training):
    valid = rated(4)[1:]
    asked = {"activation": "answer", "steps": 7, "batch_size": 2, "queries": 2}
    short = submit(anna, training, asked | {"steps": 2}, seed=11)
    job = submit(
        anna, training, asked | {"eval_every": 3, "eval_rows": 2}, validation_file=upload(anna, *valid), seed=11
    )
    spec = JobSpec.model_validate(ours(job)["spec"])
    train, held = (
        [encode(base, row, spec.adapter.invocation) for row in parse([jsonl(*rows)])] for rows in (rated(5), valid)
    )
    walk = [row for step in range(7) for row in minibatch(11, step, 5, 2)]
    assert set(walk) == set(range(5)) > set(walk[:4])
    cost = {
        "training": 4 * sum(train[row].tokens for row in walk) + sum(row.start for row in train),
        "evaluation": 4 * sum(row.tokens for row in held[:2]) + sum(row.start for row in held[:2]),
    }
    assert ours(job)["price"] == cost
    assert ours(job)["price_tokens"] == sum(cost.values())
    first = 4 * sum(train[row].tokens for row in walk[:4]) + sum(train[row].start for row in set(walk[:4]))
    assert ours(short)["price"] == {"training": first, "evaluation": 0}
    # The choices are of one token: a visit forwards the invocation and nothing else.
    assert all(row.tokens == len(spec.adapter.invocation) for row in train)
    whole = ours(submit(anna, training, asked | {"activation": "all"}, seed=11))["price"]["training"]
    assert whole == 4 * sum(row.tokens + row.start for row in (train[i] for i in walk))


def test_auto_is_answer_where_that_is_four_times_cheaper(anna, training, base):
    job = submit(anna, training, {"activation": "auto"}, validation_file=upload(anna, *rated(3)))
    assert acts(job)[:2] == ("answer", ids(base, "\nRating:")[-4:])
    assert acts(submit(anna, training, {"activation": "auto", "invocation": ":"})) == ("answer", ids(base, ":"), ":")


@pytest.mark.parametrize(
    "rows, held_out, why",
    [
        ([*rated(3), *rated(1, "story?")], None, "no common end"),
        (rated(3), rated(3, "story?"), "no common end of both files"),
        ([*rated(1, "yes:", SAYS_IT), *rated(1, "no:", SAYS_IT)], None, "an answer says it again"),
        (rated(3), [*rated(1, "yes:", SAYS_IT), *rated(1, "no:")], "a held-out answer says it again"),
        (rated(3), [*rated(1, ":"), *rated(1, ": story :")], "fine: the check must not refuse too much"),
        ([{"prompt": "yes or no:", "completion": " " + "yes " * 30}], None, "answers are most of the row"),
        ([{"messages": [*CHAT["messages"], {"role": "user", "content": LONG * 2}, *CHAT["messages"]]}], None,
         "a turn that is learned would be dropped"),
    ],
)  # fmt: skip
def test_auto_is_all_where_answer_would_not_do(anna, rows, held_out, why):
    validation = {} if held_out is None else {"validation_file": upload(anna, *held_out)}
    job = submit(anna, upload(anna, *rows), {"activation": "auto"}, **validation)
    assert acts(job)[0] == ("answer" if why.startswith("fine") else "all"), why


def test_auto_is_all_just_above_a_quarter(anna, base):
    row = {"choices": [" good", " bad"], "label": 0}
    for before, expected in ((5, "answer"), (4, "all")):  # 2 of 8 tokens, 2 of 7
        prompt = "\n" * before + "x:"
        assert len(base.encode(prompt)) == 1 + before + len(ids(base, "x:")) == before + 3
        job = submit(anna, upload(anna, row | {"prompt": prompt}), {"activation": "auto", "invocation": "x:"})
        assert acts(job)[0] == expected


def test_a_conversation_learns_its_last_turn(anna, base):
    turns = [{"messages": [*CHAT["messages"], *CHAT["messages"]]}] * 2
    job = submit(anna, upload(anna, *turns), {"activation": "answer", "invocation": "<|start|>assistant\n"})
    assert acts(job) == ("answer", ids(base, "<|start|>assistant\n"), "<|start|>assistant\n")


@pytest.mark.parametrize(
    "onward, param, code, said",
    [
        ({"activation": "most"}, "onward.activation", "invalid_value", "answer"),
        ({"activation": True}, "onward.activation", "invalid_value", "answer"),
        ({"activation": "answer", "invocation": ""}, "onward.invocation", "invalid_value", "1 character"),
        ({"activation": "answer", "invocation": "x" * 201}, "onward.invocation", "invalid_value", "200 characters"),
        ({"activation": "answer", "invocation": "a\x00b"}, "onward.invocation", "invalid_value", "pattern"),
        ({"activation": "answer", "invocation": [1, 2]}, "onward.invocation", "invalid_value", "string"),
        ({"activation": "all", "invocation": ":"}, "onward.invocation", "invalid_value", "activation 'answer'"),
        ({"invocation": ":"}, "onward.invocation", "invalid_value", "activation 'answer'"),
        ({"activation": "answer", "invocation": "Topic:"}, "onward.invocation", "no_invocation",
         "The invocation 'Topic:' is not in line 1's prompt, which ends in"),
        ({"activation": "answer", "invocation": "tory"}, "onward.invocation", "no_invocation", "send ' story'"),
        ({"activation": "answer", "rank": 0}, "onward.rank", "invalid_value", "rank"),
        ({"activation": "auto", "rank": 0}, "onward.rank", "invalid_value", "rank"),
        ({"activation": "answer", "token_budget": 1}, "onward.token_budget", "token_budget_exceeded", "0 of its 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_names_its_path(refused, training, onward, param, code, said):
    error = refused(training, onward)
    assert (error["param"], error["code"]) == (param, code)
    assert said.lower() in error["message"].lower()


def test_files_without_a_common_end_are_refused(refused, anna, training):
    mixed = upload(anna, *rated(2), *rated(1, "story?"))
    error = refused(mixed, {"activation": "answer"})
    assert (error["param"], error["code"]) == ("onward.invocation", "no_invocation")
    assert "line 3 of the training file ends in" in error["message"]
    assert "e.g. 'Answer:'" in error["message"]
    error = refused(training, {"activation": "answer"}, validation_file=mixed)
    assert (error["param"], error["code"]) == ("onward.invocation", "no_invocation")
    assert "line 3 of the validation file" in error["message"]
    error = refused(training, {"activation": "answer"}, validation_file=upload(anna, *rated(2, "story?")))
    assert "those of the validation file end in" in error["message"]


def test_rows_that_the_invocation_does_not_suit_name_the_file_and_the_line(refused, anna, training):
    asked = {"activation": "answer", "invocation": "Rating:"}
    other = upload(anna, *rated(2), *rated(1, "\nTopic:"))
    for error in (refused(other, asked), refused(training, asked, validation_file=other)):
        assert error["code"] == "invalid_file_format"
        assert error["message"].startswith("Line 3: the invocation 'Rating:' is not in the prompt")
    assert error["param"] == "validation_file"
    again = upload(anna, *rated(1), *rated(1, choices=(" good", " bad. Rating: none")))
    error = refused(again, {"activation": "answer", "invocation": " bad"})
    assert error["param"] == "onward.invocation"
    error = refused(upload(anna, *rated(2, ":", (" good: yes", " bad"))), {"activation": "answer", "invocation": ":"})
    assert (error["param"], error["code"]) == ("training_file", "invalid_file_format")
    assert "occurs again inside the answer" in error["message"]


def test_a_first_row_that_cannot_be_tokenised_is_the_files_fault(refused, anna):
    long = upload(anna, *rated(1, " story" * 300 + ":"))
    error = refused(long, {"activation": "answer", "invocation": ":"})
    assert (error["param"], error["code"]) == ("training_file", "invalid_file_format")
    assert "context" in error["message"]
    assert refused(long, {"activation": "auto"})["param"] == "training_file"


def test_a_file_is_tokenised_once_for_each_invocation(anna, monkeypatch):
    from api import token_counts

    passes = []
    monkeypatch.setattr(
        token_counts, "counting", lambda base, rows, ids=(): passes.append(ids) or counting(base, rows, ids)
    )
    good, bad = upload(anna, *rated(7)), upload(anna, *rated(7, ":", (" good: yes", " bad")))
    for _ in range(2):
        assert acts(submit(anna, good, {"activation": "auto"}))[0] == "answer"
        assert acts(submit(anna, good, {"activation": "answer"}))[0] == "answer"
        submit(anna, good)
    assert [len(ids) for ids in passes] == [0, 4]
    for _ in range(2):  # that it cannot be is remembered as well
        assert acts(submit(anna, bad, {"activation": "auto", "invocation": ":"}))[0] == "all"
    assert [len(ids) for ids in passes] == [0, 4, 0, 1]


def test_modules_that_peft_cannot_activate_are_refused(refused, anna, training, monkeypatch):
    """As OPT's MLP, whose input transformers flattens: nobody could run such an adapter. Here it is said of another
    module, for the service of these tests has one model."""
    monkeypatch.setitem(ARCHITECTURES, "llama", replace(ARCHITECTURES["llama"], flattened=("down_proj",)))
    asked = {"activation": "answer", "targets": ["q_proj", "down_proj"]}
    error = refused(training, asked)
    assert (error["param"], error["code"]) == ("onward.targets", "invalid_value")
    assert "layers.0.mlp.down_proj" in error["message"]
    assert acts(submit(anna, training, asked | {"activation": "auto"}))[0] == "all"
    fine = asked | {"targets": ["q_proj", "o_proj"]}
    assert acts(submit(anna, training, fine))[0] == "answer"


def test_a_repeated_request_is_the_same_job(anna, training):
    asked = {"activation": "answer", "invocation": "Rating:"}
    made = [submit(anna, training, asked, extra_headers={"Idempotency-Key": "one"}).id for _ in range(2)]
    assert made[0] == made[1]


def test_a_model_says_what_switches_it_on(factory, url, training, anna, base):
    who = client(factory, url, "carla")
    jobs = [submit(who, upload(who, *rated(3)), {"activation": kind}) for kind in ("answer", "all")]
    with factory.begin() as session:
        for job in jobs:
            file = File(
                id=f"file-{job.id}", tenant_id=who.id, purpose="fine-tune-results", filename="a.tar", bytes=1,
                sha256="0" * 64,
            )  # fmt: skip
            session.add(file)
            session.flush()
            session.add(
                Adapter(
                    id=f"adpt-{job.id}", tenant_id=who.id, job_id=job.id, name=f"ft:{job.id}", step=4, sha256="0" * 64,
                    path="/x", file_id=file.id, token=1,
                )
            )  # fmt: skip
    models = {model.id: model for model in who.openai.models.list()}
    answer, plain = (models[f"ft:{job.id}"] for job in jobs)
    assert ours(answer)["activation"] == "answer"
    assert (ours(answer)["invocation_tokens"], ours(answer)["invocation"]) == acts(jobs[0])[1:]
    assert ours(plain)["activation"] == "all"
    assert not {"invocation", "invocation_tokens"} & set(ours(plain))
    assert who.openai.models.retrieve(answer.id) == answer
