"""What is tokenised together: rows and texts in batches of bounded size, and of a prompt only its last words again for
each continuation. An encoding takes some hundred bytes a token while it is held. Knows rows, not what is scored."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tokenizers import Encoding

from db.contract.rows.formats import Chat, Choice, Completion, Row
from db.contract.tokens import joints
from db.contract.tokens.base_model import Base

CHUNK: Final = 512  # rows: enough to keep the tokenizer's threads busy
CHARACTERS: Final = 1 << 17  # of a batch of texts, unless one alone has more


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Up to CHUNK rows of up to CHARACTERS, one at least."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        size = _size(row)
        if chunk and (len(chunk) == CHUNK or characters + size > CHARACTERS):
            yield chunk
            chunk, characters = [], 0
        chunk.append(row)
        characters += size
    if chunk:
        yield chunk


def _size(row: Row) -> int:
    if isinstance(row, Chat):
        said = sum(len(message.content) for message in row.messages)
        parts = (*row.tools, *(call for message in row.messages for call in message.calls))
        return said + sum(len(json.dumps(part)) for part in parts)
    return len(row.prompt) + sum(map(len, continuations(row)))


@dataclass(frozen=True)
class Prompt:
    """A row's prompt in ids, of which `rest` are those from character `cut` on: where a text may be cut."""

    row: Completion | Choice
    ids: list[int]
    cut: int
    rest: list[int]

    @classmethod
    def of(cls, row: Completion | Choice, encoding: Encoding, certain: bool) -> "Prompt":
        cut, before = joints.joint(row.prompt, encoding) if certain else (0, 0)
        ids = encoding.ids
        return cls(row, ids, cut, ids[before:])

    @property
    def continued(self) -> Iterator[str]:
        """What is left of the prompt from `cut` on, with each of its continuations."""
        rest = self.row.prompt[self.cut :]
        return (rest + tail for tail in continuations(self.row))


def ids_of(base: Base, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text, tokenised in batches of up to CHARACTERS, one text at least."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and characters + len(text) > CHARACTERS:
            yield from _batched(base, batch)
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    yield from _batched(base, batch)


def _batched(base: Base, texts: list[str]) -> Iterator[list[int]]:
    return (encoding.ids for encoding in base.tokenizer.encode_batch(texts, add_special_tokens=False))


def continuations(row: Completion | Choice) -> tuple[str, ...]:
    return row.choices if isinstance(row, Choice) else (row.completion,)
