"""Files as OpenAI's and Azure's users have them: each is accepted or refused as the manifest and the docs say, and what
is trained on, read or ignored is seen in the tokens."""

from dataclasses import replace

import pytest

from db.contract.rows.files import check, parse
from db.contract.rows.jsonl import BadRow
from db.contract.tokens import chat_template
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import encode, encode_rows
from tests.bases import TEMPLATE
from tests.db.contract.rows.corpus import FOLDER, MARK, TRAPS, Trap
from tests.docs.following import ROOT
from tests.templates import NAMES, QWEN
from worker.runs.data import FileExamples, examples

TEMPLATES = {"qwen": QWEN, "names": NAMES, "chatml": TEMPLATE}
PAGE = ROOT / "docs" / "files.md"


@pytest.fixture(scope="module")
def shown(qwen2: Base) -> dict[str, Base]:
    return {name: replace(qwen2, chat_template=text, context=4096) for name, text in TEMPLATES.items()}


def _seen(base: Base, raw: bytes) -> tuple[str, str]:
    """What a base is shown of a file, and what of it is learned."""
    rows = list(parse([raw]))
    learned = [
        base.tokenizer.decode(list(encode(base, row).candidates[0][2]), skip_special_tokens=False) for row in rows
    ]
    read = [
        chat_template.text(base, row) if hasattr(row, "messages") else f"{row.prompt}{row.completion}" for row in rows
    ]
    return "\n".join(read), "\n".join(learned)


@pytest.mark.parametrize("trap", [t for t in TRAPS if not t.refused], ids=lambda t: t.file)
def test_a_file_is_accepted_and_its_field_trained_on_read_or_ignored(trap: Trap, shown: dict[str, Base]):
    check([trap.raw])
    if trap.same_as is not None:
        assert list(parse([trap.raw])) == list(parse([(FOLDER / trap.same_as).read_bytes()]))
        if MARK not in trap.raw.decode():
            return
    read, learned = _seen(shown[trap.template], trap.raw)
    assert MARK in trap.raw.decode() or trap.file == "parts.jsonl"  # which has it in two parts
    assert (MARK in read, MARK in learned) == {
        "trained on": (True, True), "read": (True, False), "ignored": (False, False),
    }[trap.verdict]  # fmt: skip


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.refused], ids=lambda t: t.file)
def test_a_file_is_refused_with_its_line_and_in_its_own_words(trap: Trap, shown: dict[str, Base]):
    if trap.at == "job":
        check([trap.raw])
    with pytest.raises(BadRow) as caught:
        list(encode_rows(shown[trap.template], parse([trap.raw]))) if trap.at == "job" else check([trap.raw])
    assert caught.value.line == trap.line
    assert trap.says in str(caught.value)
    assert "template" not in str(caught.value) or trap.at == "job"
    assert trap.at == "upload" or "tiny-qwen2 cannot" in str(caught.value)


@pytest.mark.parametrize("trap", [t for t in TRAPS if not t.refused], ids=lambda t: t.file)
def test_a_worker_that_reads_line_by_line_has_the_rows_that_were_priced(trap: Trap, shown: dict[str, Base]):
    base = shown[trap.template]
    whole, alone = examples(base, trap.raw), FileExamples(base, trap.raw)
    priced = list(encode_rows(base, parse([trap.raw])))
    assert len(whole) == len(alone) == len(priced)
    for one, other, paid in zip(whole, alone, priced, strict=True):
        assert (
            [s.tolist() for s in one.sequences] == [s.tolist() for s in other.sequences] == [*map(list, paid.sequences)]
        )
        targets = [[c.targets.tolist() for c in e.candidates] for e in (one, other)]
        assert targets[0] == targets[1] == [list(t) for _, _, t in paid.candidates]


def test_the_table_of_the_docs_is_the_manifest():
    table = PAGE.read_text().partition("<!-- fields: begin -->")[2].partition("<!-- fields: end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()][2:]
    said = [(field, value, verdict.removesuffix(" at the job")) for field, value, verdict in rows]
    assert sorted(said) == sorted((t.field, t.value, t.verdict) for t in TRAPS)
    assert [v for *_, v in rows if v.endswith(" at the job")] == ["refused at the job"] * sum(
        t.at == "job" for t in TRAPS
    )
    assert len(TRAPS) >= 60
    assert len({t.file for t in TRAPS}) == len(TRAPS)
