"""Tokenised examples and which of them a step sees. Knows rows and token ids, no engine and no SQL."""

from dataclasses import dataclass

import numpy as np

from db import sampling
from db.bases import Base
from db.encoding import Encoded, encode_rows
from db.rows import Limits, parse
from worker.types import Candidate, Example


@dataclass(frozen=True)
class Dataset:
    """What a run trains on and is measured on, in file order. `valid` is empty where there is nothing to measure."""

    train: tuple[Example, ...]
    valid: tuple[Example, ...] = ()

    def minibatch(self, seed: int, step: int, batch: int) -> tuple[Example, ...]:
        """The [batch] examples of a step: see `db.sampling.minibatch`."""
        return tuple(self.train[i] for i in sampling.minibatch(seed, step, len(self.train), batch))


def examples(base: Base, raw: bytes, rows: int | None = None) -> tuple[Example, ...]:
    """The examples of a JSONL file, or of its first `rows` rows. The file passed the API's own limits when it was
    uploaded, so only what no model can be trained on is refused here: raises BadRow."""
    size = max(len(raw), 2)
    limits = Limits(max_line_bytes=size, max_file_bytes=size, max_rows=size, max_choices=size, max_messages=size)
    encoded = encode_rows(base, parse((raw,), limits))
    return tuple(example(e) for _, e in zip(range(len(raw) if rows is None else rows), encoded, strict=False))


def example(encoded: Encoded) -> Example:
    """The same in the arrays that the engine takes: int32 ids, positions and targets."""
    return Example(
        sequences=tuple(np.array(ids, dtype=np.int32) for ids in encoded.sequences),
        candidates=tuple(
            Candidate(sequence, np.array(positions, dtype=np.int32), np.array(targets, dtype=np.int32))
            for sequence, positions, targets in encoded.candidates
        ),
        label=encoded.label,
    )
