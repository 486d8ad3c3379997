"""What is refused before any worker hears of it: in OpenAI's shape, with the field by its name, and never a 500."""

import json

import httpx
import openai
import pytest
from sqlalchemy import func, update

from db.contract.tokens.base_model import load
from db.ids import checkpoint_name, live_name
from db.tables import Adapter, Job
from db.tenant import keys
from tests.api.chat.conftest import HI, published
from tests.api.conftest import MODEL
from tests.waiting import HANG

VLLM = (
    "cache_salt", "priority", "chat_template", "chat_template_kwargs", "kv_transfer_params", "vllm_xargs",
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "prompt_logprobs",
    "use_beam_search", "best_of", "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens", "add_generation_prompt", "echo",
    "add_special_tokens", "documents", "mm_processor_kwargs", "request_id", "logits_processors", "allowed_token_ids",
    "bad_words", "truncate_prompt_tokens", "continue_final_message", "return_token_ids", "session_id", "suffix",
    "stream_interval", "return_tokens_as_token_ids",
)  # fmt: skip
OTHERS = ("store", "modalities", "audio", "service_tier", "reasoning_effort", "prediction", "functions", "web_search")


@pytest.fixture
def post(url, anna):
    """Sends bytes as they are: what no client would."""

    def send(path="/chat/completions", **fields):
        said = fields.pop("raw", None)
        whole = {"model": MODEL, "messages": HI} if path.startswith("/chat") else {"model": MODEL, "prompt": "a"}
        body = said if said is not None else json.dumps(whole | fields).encode()
        headers = {"authorization": f"Bearer {anna.secret}", "content-type": "application/json"}
        answer = httpx.post(f"{url}{path}", content=body, headers=headers, timeout=HANG)
        error = answer.json().get("error")
        assert error is None or set(error) == {"message", "type", "param", "code"}
        return answer.status_code, error

    return send


@pytest.fixture(autouse=True)
def unheard(worker):
    """No test of this file may reach the worker, but for those that say so."""
    yield
    assert worker.seen == []


@pytest.mark.parametrize("name", VLLM + OTHERS)
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_what_is_not_openais_or_not_ours_is_refused_by_name(post, path, name):
    status, error = post(path, **{name: 1})
    assert (status, error["param"], error["code"]) == (400, name, "unknown_parameter")
    assert name in error["message"]


@pytest.mark.parametrize("field, value", [
    ("temperature", 9), ("temperature", -0.1), ("temperature", "1"), ("temperature", True), ("top_p", 0),
    ("top_p", 1.1), ("n", 1000), ("n", 0), ("n", 1.5), ("stop", ["x"] * 10_000), ("stop", ["a"] * 5), ("stop", ""),
    ("stop", ["x" * 300]), ("seed", 2**63), ("seed", 1.5), ("logprobs", "yes"), ("top_logprobs", 21),
    ("presence_penalty", 3), ("frequency_penalty", -3), ("logit_bias", {"x": 1}), ("logit_bias", {"5": 101}),
    ("logit_bias", [1]), ("stream", "yes"), ("stream_options", {"include_usage": True}),
    ("max_tokens", 0), ("max_completion_tokens", -1), ("max_completion_tokens", 2**40),
    ("response_format", {"type": "regex"}), ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
    ("tools", []), ("tools", [{"type": "retrieval"}]), ("tool_choice", "auto"), ("metadata", {"a": 1}),
    ("metadata", {str(i): "" for i in range(17)}), ("user", 5), ("messages", []), ("messages", "hi"),
    ("messages", [{"role": "user"}]), ("messages", [{"role": "king", "content": "hi"}]),
    ("messages", [{"content": "hi"}]), ("messages", [{"role": "user", "content": "hi", "prefix": True}]), ("model", ""),
])  # fmt: skip
def test_values_out_of_their_range(post, field, value):
    status, error = post(**{field: value})
    assert status == 400, error
    assert field in error["message"] or str(error["param"]).startswith(field), error


def test_images_and_sound_are_refused(post):
    for part in ({"type": "image_url", "image_url": {"url": "data:"}}, {"type": "input_audio", "input_audio": {}}):
        status, error = post(messages=[{"role": "user", "content": [part]}])
        assert (status, error["param"]) == (400, "messages[0].content[0]")
        assert part["type"] in error["message"]


def test_what_is_no_text_is_refused(post):
    for text in ("a\u0000b", "\ud800", "\udfff"):
        for where in ({"messages": [{"role": "user", "content": text}]}, {"stop": text}, {"user": text}):
            status, error = post(**where)
            assert status == 400, error
        status, error = post("/completions", prompt=text)
        assert status == 400, error
    assert post(model="a\u0000b")[0] == 400


@pytest.mark.parametrize("raw", [
    b"", b"null", b"[]", b"{", b'{"model": NaN}', b"\xff", b"[" * 100_000, b'{"model": "tiny", "stop": ' + b"[" * 9000,
    b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"temperature":1e999}',
    b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 5000 + b"}",
    b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_schema","json_schema":'
    b'{"name":"a","schema":{"maximum":NaN}}}}',
])  # fmt: skip
def test_what_is_no_request(post, raw):
    assert post(raw=raw)[0] == 400


def test_a_body_beyond_its_limit(post):
    status, error = post(messages=[{"role": "user", "content": "a" * (1 << 20)}])
    assert (status, error["code"]) == (413, "request_too_large")


def test_what_the_context_does_not_hold(post):
    status, error = post(messages=[{"role": "user", "content": "film " * 500}])
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "maximum context length is" in error["message"]
    status, error = post(max_tokens=1_000_000)
    assert (status, error["code"]) == (400, "context_length_exceeded")
    status, error = post("/completions", prompt=["a", "film " * 500])
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")


def test_two_ways_to_say_one_thing(post):
    status, error = post(max_tokens=3, max_completion_tokens=4)
    assert status == 400
    assert "two ways" in error["message"]
    assert post(top_logprobs=3)[0] == 400


def test_tokens_that_there_are_not(post):
    assert post("/completions", prompt=[10**9])[0] == 400
    assert post("/completions", prompt=[])[0] == 400
    assert post("/completions", prompt=[[1], []])[0] == 400
    assert post("/completions", prompt=[-1])[0] == 400


def test_a_template_that_the_conversation_breaks(post, fleet):
    broken = [{"role": "tool", "tool_call_id": "none", "content": "x"}]
    status, error = post(messages=broken)
    assert (status, error["param"]) == (400, "messages[0]")


def test_tools_where_the_base_has_no_parser(post):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    status, error = post(tools=tools)
    assert (status, error["param"], error["code"]) == (400, "tools", "unsupported_parameter")


def asked(who, name):
    with pytest.raises(openai.APIStatusError) as refused:
        who.openai.chat.completions.create(model=name, messages=HI)
    return refused.value


def test_unknown_foreign_deleted_and_unfinished_names_are_one_404_that_lists_nothing(
    anna, ben, factory, train, settings
):
    foreign, foreign_name = train(ben, "succeeded")
    published(factory, ben, foreign, foreign_name, 10)
    running, running_name = train(ben, "running", 3)
    deleted, deleted_name = train(anna, "succeeded")
    published(factory, anna, deleted, deleted_name, 10)
    with factory.begin() as session:
        session.execute(update(Adapter).where(Adapter.job_id == deleted).values(deleted_at=func.now()))
    _, unfinished = train(anna, "running", 3)
    names = [
        "nobody", "base", "ft:none", "../tiny", f"{running}@3", foreign, foreign_name, live_name(running_name),
        checkpoint_name(running_name, 1), checkpoint_name(foreign_name, 10), f"adpt-{foreign}", deleted_name,
        live_name(deleted_name), checkpoint_name(deleted_name, 3), unfinished, checkpoint_name(unfinished, 4),
        checkpoint_name(unfinished, 10**6), live_name(unfinished[:-1]), live_name("ft:"), ":live",
    ]  # fmt: skip
    said = set()
    for name in names:
        error = asked(anna, name)
        assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
        said.add(str(error.body["message"]).replace(name, "?"))
    assert said == {"The model '?' does not exist."}


@pytest.mark.parametrize("state, step, says, instead", [
    ("running", 0, "committed no step", MODEL), ("queued", 0, "queued", MODEL),
    ("queued", 3, "queued, at step 3", "ckpt-step-3"), ("paused", 4, "paused, at step 4", "ckpt-step-4"),
    ("cancelled", 5, "over (cancelled)", "ckpt-step-5"), ("failed", 2, "over (failed)", "ckpt-step-2"),
])  # fmt: skip
def test_live_of_a_job_that_does_not_train_says_why_and_what_to_ask(anna, train, state, step, says, instead):
    _, name = train(anna, state, step)
    error = asked(anna, live_name(name))
    assert (error.status_code, error.code) == (409, "model_not_live")
    assert says in error.body["message"]
    wanted = instead if instead == MODEL else f"{name}:{instead}"
    assert f"Use '{wanted}'." in error.body["message"]
    assert error.response.headers["x-should-retry"] == "false"


def test_live_of_a_job_that_has_published_names_its_adapter(anna, factory, train):
    job, name = train(anna, "succeeded")
    published(factory, anna, job, name, 10)
    assert f"over (succeeded), at step 10. Use '{name}'." in asked(anna, live_name(name)).body["message"]


def test_an_adapter_that_acts_from_an_invocation_wants_it_in_the_prompt(anna, factory, train, chats):
    job, name = train(anna, "running", 2)
    ids = load(MODEL, chats).tokenizer.encode(" It was", add_special_tokens=False).ids
    with factory.begin() as session:
        row = session.get_one(Job, job)
        row.spec = row.spec | {"adapter": row.spec["adapter"] | {"activation": "answer", "invocation": ids}}
    with pytest.raises(openai.BadRequestError) as refused:
        anna.openai.completions.create(model=live_name(name), prompt="the film")
    assert (refused.value.code, refused.value.param) == ("invocation_missing", "prompt")
    assert "' It was'" in refused.value.body["message"]


@pytest.mark.parametrize("rights, speaks, reads, trains", [
    ({"serve"}, True, False, False), ({"read"}, False, True, False), ({"train"}, False, True, True),
    ({"serve", "read"}, True, True, False), ({"train", "serve"}, True, True, True),
])  # fmt: skip
def test_what_each_scope_may(anna, factory, url, rights, speaks, reads, trains):
    with factory.begin() as session:
        _, secret = keys.create_key(session, anna.id, rights=rights)
    headers = {"authorization": f"Bearer {secret}"}

    def allowed(method, path, **how):
        answer = httpx.request(method, f"{url}{path}", headers=headers, timeout=HANG, **how)
        assert answer.status_code != 403 or answer.json()["error"]["code"] == "insufficient_scope"
        return answer.status_code != 403

    unknown = {"model": "nobody", "messages": HI}
    assert allowed("POST", "/chat/completions", json=unknown) == speaks
    assert allowed("POST", "/completions", json={"model": "nobody", "prompt": "a"}) == speaks
    assert allowed("GET", "/models") == (reads or speaks)
    for path in ("/files", "/fine_tuning/jobs", "/files/x/content", "/onward/audit"):
        assert allowed("GET", path) == reads
    assert allowed("POST", "/fine_tuning/jobs", json={}) == trains
    assert allowed("DELETE", "/files/x") == trains
    assert allowed("DELETE", "/models/ft:x") == trains
