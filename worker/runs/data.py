"""Tokenised examples and which of them a step sees. Knows rows and token ids, no engine and no SQL."""

from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import overload

import numpy as np
from numpy.typing import NDArray

from db.contract import sampling
from db.contract.rows.files import parse
from db.contract.rows.jsonl import Limits
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import Encoded, encode_rows
from worker.types import Candidate, Example


@dataclass(frozen=True)
class Dataset:
    """What a run trains on, in file order, and is measured on; `valid` is empty where there is nothing to measure."""

    train: Sequence[Example]
    valid: tuple[Example, ...] = ()

    def minibatch(self, seed: int, step: int, batch: int, repeat: int = 1) -> tuple[Example, ...]:
        """The [batch] examples of a step, where each minibatch serves `repeat` steps: see `sampling.minibatch`."""
        return tuple(self.train[i] for i in sampling.minibatch(seed, step // repeat, len(self.train), batch))

    def asked(self, seed: int, rows: Sequence[int] | None, batch: tuple[Example, ...]) -> tuple[Example, ...]:
        """What a probe is scored on: the step's `batch`, or its own `rows` (`sampling.walked`)."""
        if rows is None:
            return batch
        return tuple(self.train[i] for i in sampling.walked(seed, len(self.train), rows))


def dataset(base: Base, spec: JobSpec, train: bytes, valid: bytes = b"") -> Dataset:
    """What the job of `spec` sees of its files. Raises BadRow at a row to be measured on that cannot be; a training row
    is made when it is first asked for."""
    invocation = spec.adapter.invocation
    rows = FileExamples(base, train, invocation)
    if not spec.held_out:
        return Dataset(rows, examples(base, valid, spec.eval_rows, invocation) if valid and spec.eval_rows else ())
    trained, kept = sampling.split(spec.seed, len(rows), spec.held_out)
    return Dataset(rows.only(trained), tuple(rows[i] for i in kept[: spec.eval_rows].tolist()))


def examples(base: Base, raw: bytes, rows: int | None = None, invocation: tuple[int, ...] = ()) -> tuple[Example, ...]:
    """The examples of a JSONL file, or of its first `rows` rows, for an adapter with this invocation. The file passed
    the API's own limits when it was uploaded, so only what no model can be trained on is refused here: raises BadRow.
    """
    return tuple(example(e) for e in islice(encode_rows(base, parse((raw,), _unlimited(raw)), invocation), rows))


class FileExamples(Sequence[Example]):
    """The same examples, each tokenised when it is first asked for: a run on a long file starts at once, and its step
    pays for its own rows only. Raises BadRow (line 1, for it sees one line) at the row that cannot be trained on."""

    def __init__(self, base: Base, raw: bytes, invocation: tuple[int, ...] = ()) -> None:
        self._base, self._limits, self._invocation = base, _unlimited(raw), invocation
        self._lines = raw.rstrip().split(b"\n")  # blank lines are at the end only, or the API had refused the file
        self._rows: Sequence[int] = range(len(self._lines))
        self._made: dict[int, Example] = {}

    def only(self, rows: NDArray[np.int32]) -> "FileExamples":
        """These rows of the file, by number."""
        made = copy(self)
        made._rows = array("i", rows.tobytes())
        return made

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...

    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = self._rows[index]  # counts from the end where negative, IndexError outside
        if place not in self._made:
            (encoded,) = encode_rows(self._base, parse((self._lines[place],), self._limits), self._invocation)
            self._made[place] = example(encoded)
        return self._made[place]


def example(encoded: Encoded) -> Example:
    """The same in the arrays that the engine takes: int32 ids, positions and targets."""
    return Example(
        sequences=tuple(np.array(ids, dtype=np.int32) for ids in encoded.sequences),
        candidates=tuple(
            Candidate(sequence, np.array(positions, dtype=np.int32), np.array(targets, dtype=np.int32))
            for sequence, positions, targets in encoded.candidates
        ),
        label=encoded.label,
        shared=encoded.shared,
        start=encoded.start,
    )


def _unlimited(raw: bytes) -> Limits:
    size = max(len(raw), 2)
    return Limits(max_line_bytes=size, max_file_bytes=size, max_rows=size, max_choices=size, max_messages=size)
