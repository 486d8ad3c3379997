"""The corpus of trap files through the real upload, and jobs on a base whose template shows no tools."""

import pytest
from openai import BadRequestError

from tests.api.conftest import Client
from tests.api.examples import CHAT, jsonl, submit, upload
from tests.db.contract.rows.corpus import TRAPS


def _uploaded(who: Client, name: str, raw: bytes) -> str:
    return who.openai.files.create(file=(name, raw), purpose="fine-tune").id


def test_each_is_stored_as_it_was_or_refused_with_its_line(anna: Client):
    for trap in TRAPS:
        if not trap.refused or trap.at == "job":
            assert anna.openai.files.content(_uploaded(anna, trap.file, trap.raw)).read() == trap.raw, trap.file
            continue
        with pytest.raises(BadRequestError) as caught:
            _uploaded(anna, trap.file, trap.raw)
        body = dict(caught.value.body)
        assert (body["param"], body["code"]) == ("file", "invalid_file_format"), trap.file
        assert body["message"].startswith(f"Line {trap.line}: "), trap.file
        assert trap.says in body["message"], trap.file


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.tools or t.at == "job"], ids=lambda t: t.file)
def test_a_base_that_shows_no_tools_refuses_the_job_and_is_named(anna: Client, trap):
    file = _uploaded(anna, trap.file, trap.raw)
    with pytest.raises(BadRequestError) as caught:
        submit(anna, file)
    said = dict(caught.value.body)
    assert said["message"].startswith("Line 2: tiny cannot be trained on tools: its chat template leaves")
    assert said["param"] == "training_file"


def test_what_says_nothing_costs_nothing(anna: Client):
    """A marked file with names, parts and empty keys is priced as the plain one."""
    user, answer = CHAT["messages"]
    rich = {
        "messages": [
            {**user, "content": [{"type": "text", "text": user["content"]}], "name": "anna"},
            {**answer, "refusal": None, "tool_calls": None, "weight": None},
        ],
        "tools": [], "parallel_tool_calls": True, "id": 7,
    }  # fmt: skip
    marked = _uploaded(anna, "marked.jsonl", b"\xef\xbb\xbf" + jsonl(rich, rich))
    jobs = [submit(anna, file, seed=3) for file in (upload(anna, CHAT, CHAT), marked)]
    assert len({job.model_extra["onward"]["price_tokens"] for job in jobs}) == 1


def test_the_first_five_bad_rows_are_told_with_the_count_of_all(anna: Client):
    rows = [CHAT if i % 2 else {"messages": []} for i in range(2000)]
    with pytest.raises(BadRequestError) as caught:
        _uploaded(anna, "bad.jsonl", jsonl(*rows))
    said = dict(caught.value.body)["message"]
    assert said == ("Line 1: messages must hold 1 to 1024 messages, not 0 (so are lines 3, 5, 7, 9). 1000 rows are bad")
