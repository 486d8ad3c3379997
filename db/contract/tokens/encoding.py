"""From rows to token ids, and which of them are scored: the same in the API, which prices, and the worker, which pays.

Token boundaries as in MeZO (Malladi et al., 2023): a continuation's ids are what is left of prompt + continuation
after the prompt's ids; where those are no prefix, the continuation is encoded alone. The start of an adapter of
activation `answer` is PEFT's (aLoRA, arXiv 2504.12397): that of the invocation's last occurrence in what is forwarded.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import Encoding

from db.contract.rows.formats import Chat, Choice, Completion, Row
from db.contract.rows.jsonl import BadRow
from db.contract.tokens import chat_template, joints
from db.contract.tokens.base_model import Base
from db.contract.tokens.batches import Prompt, chunks, continuations, ids_of

SLACK = 64  # tokens


class Unencodable(ValueError):
    """A row that a base model cannot be trained on: `reason` is for the tenant, `param` the key it concerns."""

    def __init__(self, reason: str, param: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.param = reason, param


class TooLong(Unencodable):
    """A row of `tokens` tokens, its last scored target included, where the model's `context` holds fewer."""

    def __init__(self, tokens: int, context: int, param: str | None = None) -> None:
        super().__init__(f"{tokens} tokens are more than the model's context of {context}", param)
        self.tokens, self.context = tokens, context


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row in tokens. `sequences` are forwarded, each once; of a candidate (sequence, positions, targets), the logits
    of row positions[j] of its sequence predict targets[j]. `label` is the candidate that is right. The first `shared`
    tokens are common to all sequences where there are several; an adapter of activation `answer` acts from token
    `start` on, 0 for activation `all`."""

    sequences: tuple[tuple[int, ...], ...]
    candidates: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]
    label: int = 0
    shared: int = 0
    start: int = 0

    @property
    def tokens(self) -> int:
        """Scored tokens of a visit: forward positions paid for by every probe. Common tokens count once."""
        return sum(map(len, self.sequences)) - (len(self.sequences) - 1) * self.shared - self.start

    @property
    def prompt(self) -> int:
        """Scored tokens before `start`, paid for once a job: they are the base model's, whatever the probe."""
        return self.start


def encode(base: Base, row: Row, invocation: tuple[int, ...] = ()) -> Encoded:
    """One row, for an adapter that acts from the last occurrence of the ids `invocation` on, or everywhere where they
    are none. What is scored before that occurrence is dropped. Raises Unencodable, TooLong."""
    return _activated(base, row, next(_encode_chunk(base, [row])), invocation)


def encode_rows(base: Base, rows: Iterable[Row], invocation: tuple[int, ...] = ()) -> Iterator[Encoded]:
    """Every row of a file in order, tokenised in chunks. Raises BadRow with the line of the first that cannot be."""
    line = 1
    for chunk in chunks(rows):
        encoded = _encode_chunk(base, chunk)
        for row in chunk:
            try:
                yield _activated(base, row, next(encoded), invocation)
            except Unencodable as error:
                raise BadRow(line, error.reason, error.param) from error
            line += 1


def _encode_chunk(base: Base, rows: Sequence[Row]) -> Iterator[Encoded]:
    """Tokenises the beginnings of all rows in one call and what follows them in bounded ones, then lays out row by row.
    What cannot be raises at its turn."""
    refused: dict[int, Unencodable] = {}
    heads: list[str] = []
    for i, row in enumerate(rows):
        try:
            heads.append(chat_template.text(base, row) if isinstance(row, Chat) else row.prompt)
        except chat_template.Untemplated as error:
            heads.append("")
            refused[i] = Unencodable(str(error), "messages")
    encodings = base.tokenizer.encode_batch(heads, add_special_tokens=False)
    prompts: dict[int, Prompt] = {}
    certain = joints.certain(base.tokenizer)
    for i, row in enumerate(rows):
        # Before more is done with it, for a prompt is continued once a choice and a conversation rendered once a turn.
        # The slack is for what a template puts after the last scored token; the exact limit is `_share`'s.
        if len(encodings[i]) > base.context + SLACK:
            refused[i] = TooLong(len(encodings[i]), base.context, _param(row))
        elif not isinstance(row, Chat):
            prompts[i] = Prompt.of(row, encodings[i], certain)
    continued = ids_of(base, (text for prompt in prompts.values() for text in prompt.continued))
    for i, row in enumerate(rows):
        if i in refused:
            raise refused[i]
        if isinstance(row, Chat):
            yield _conversation(base, row, heads[i], encodings[i])
            continue
        prompt, tails = prompts[i], []
        for tail in continuations(row):
            ids = next(continued)
            if ids[: len(prompt.rest)] == prompt.rest:
                tails.append(ids[len(prompt.rest) :])
            else:
                tails.append(base.tokenizer.encode(tail, add_special_tokens=False).ids)
        yield _continued(base, row, [*base.prefix, *prompt.ids], tails)


def _param(row: Row) -> str:
    return "messages" if isinstance(row, Chat) else "prompt"


def _continued(base: Base, row: Completion | Choice, prompt: list[int], tails: list[list[int]]) -> Encoded:
    if isinstance(row, Choice):
        if not prompt:
            raise Unencodable("the prompt has no tokens: nothing precedes the choices", "prompt")
        for i, tail in enumerate(tails):
            if not tail:
                raise Unencodable(f"choices[{i}] has no tokens of its own after the prompt", f"choices[{i}]")
        return _share(
            base, row, [(prompt + tail, range(len(prompt), len(prompt) + len(tail))) for tail in tails], row.label
        )
    if not tails[0]:
        raise Unencodable("the completion has no tokens of its own after the prompt", "completion")
    ids = [*prompt, *tails[0], *([] if base.eos is None else [base.eos])]
    # Without a prompt or BOS the first token has nothing that predicts it.
    return _share(base, row, [(ids, range(max(len(prompt), 1), len(ids)))], 0)


def _conversation(base: Base, row: Chat, full: str, encoding: Encoding) -> Encoded:
    try:
        turns = chat_template.spans(base, row, full)
    except chat_template.Untemplated as error:
        raise Unencodable(str(error), "messages") from error
    ids, offsets = encoding.ids, encoding.offsets
    starts, ends = [low for low, _ in offsets], [high for _, high in offsets]
    scored: list[int] = []
    for start, content, end, calls in turns:
        # Every token that holds some of the content, be it with the end of what precedes it, and what closes the turn
        # up to its first special token: nothing where none does. Tool calls may have special tokens of their own, so
        # that these turns go up to their last, or to their end where there is none.
        inside = range(max(bisect_right(ends, start), 1), bisect_left(starts, end))
        body = [i for i in inside if starts[i] < content]
        tail = [i for i in inside if starts[i] >= content]
        special = [n for n, i in enumerate(tail) if ids[i] in base.special_ids]
        closing = (special or [len(tail) - 1])[-1] if calls else (special or [-1])[0]
        scored.extend((*body, *tail[: closing + 1]))
    if not scored:
        raise Unencodable("the assistant messages have no tokens: there is nothing to learn", "messages")
    return _share(base, row, [(ids, scored)], 0)


def _share(base: Base, row: Row, texts: Sequence[tuple[list[int], Sequence[int]]], label: int) -> Encoded:
    """Lays out candidates given as (ids, indices of the scored ids): inputs end before the last scored id, and an
    input that is a prefix of another is forwarded with it."""
    for ids, scored in texts:
        if scored[-1] >= base.context:
            raise TooLong(scored[-1] + 1, base.context, _param(row))
        if max(ids) >= base.vocab:
            raise Unencodable(f"token {max(ids)} has no embedding: the model has {base.vocab}", _param(row))
    inputs = [tuple(ids[: scored[-1]]) for ids, scored in texts]
    sequences: list[tuple[int, ...]] = []
    where = [0] * len(inputs)
    for i in sorted(range(len(inputs)), key=lambda i: -len(inputs[i])):
        length = len(inputs[i])
        where[i] = next((s for s, other in enumerate(sequences) if other[:length] == inputs[i]), len(sequences))
        if where[i] == len(sequences):
            sequences.append(inputs[i])
    candidates = tuple(
        (sequence, tuple(j - 1 for j in scored), tuple(ids[j] for j in scored))
        for sequence, (ids, scored) in zip(where, texts, strict=True)
    )
    return Encoded(tuple(sequences), candidates, label, shared=_common(sequences))


def _common(sequences: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens several sequences have in common; 0 for one."""
    if len(sequences) == 1:
        return 0
    first, last = min(sequences), max(sequences)  # what these two have in common, all have
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _activated(base: Base, row: Row, whole: Encoded, invocation: tuple[int, ...]) -> Encoded:
    """`whole` for an adapter that acts from `invocation` on: every candidate in its own input, for which the last
    occurrence must end before the first target kept. Candidates share their prompt, so they share the start."""
    if not invocation:
        return whole
    start, candidates = 0, []
    for i, (sequence, positions, targets) in enumerate(whole.candidates):
        ids = whole.sequences[sequence][: positions[-1] + 1]
        found = last_occurrence(ids, invocation)
        if found is None:
            reason = f"the invocation {decoded(base, invocation)!r} is not in the prompt: the adapter would never act"
            raise Unencodable(reason, _param(row))
        start, kept = found, bisect_left(positions, found)
        # A kept target right after a dropped one is in the middle of an answer.
        cut = kept > 0 and positions[kept - 1] == positions[kept] - 1
        if cut or start + len(invocation) > positions[kept] + 1:
            raise Unencodable(_misplaced(base, ids[: positions[0] + 1], invocation), _answer(row, i))
        candidates.append((sequence, positions[kept:], targets[kept:]))
    return replace(whole, candidates=tuple(candidates), start=start)


def last_occurrence(ids: tuple[int, ...], part: tuple[int, ...]) -> int | None:
    """Where the last occurrence of `part` in `ids` starts."""
    return next((i for i in range(len(ids) - len(part), -1, -1) if ids[i : i + len(part)] == part), None)


def decoded(base: Base, ids: Sequence[int]) -> str:
    """The text of some ids, special tokens too: for people to read."""
    return base.tokenizer.decode(list(ids), skip_special_tokens=False)


def _misplaced(base: Base, prompt: tuple[int, ...], invocation: tuple[int, ...]) -> str:
    text = decoded(base, invocation)
    if last_occurrence(prompt, invocation) is None:
        return f"the invocation {text!r} is in the answer only: it must be in the prompt before it"
    return f"the invocation {text!r} occurs again inside the answer: the adapter would start there"


def _answer(row: Row, candidate: int) -> str:
    if isinstance(row, Choice):
        return f"choices[{candidate}]"
    return "messages" if isinstance(row, Chat) else "completion"
