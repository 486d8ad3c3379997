"""Core types of the worker: what is scored and what comes back. Knows numpy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

Params = NDArray[np.float32]  # [P], every tensor of one adapter laid end to end in layout order
LogProbs = list[list[NDArray[np.float32]]]  # over examples, over candidates: [targets], nats
Greedy = list[list[NDArray[np.bool_]]]  # in the same shape: whether the target is the first of the likeliest tokens

# Forward passes that a trial with derivatives costs: a tangent doubles each product, a backward pass has two for each.
TANGENT: Final = 2
GRADIENT: Final = 3
# And those of a trial that is compared with the bare base.
BESIDE: Final = 2


class CannotCompute(ValueError):
    """This process cannot compute rightly what it was asked to hold: the message says what and why, in one sentence."""


class EngineOff(Exception):
    """The engine's losses are not what they were at its start: nothing that it returned may be used."""


class EngineGone(EngineOff):
    """The engine has ended in this process, by no fault of what is scored: nothing more comes of it."""


@dataclass(frozen=True)
class Module:
    """One linear module of the base model, by its transformers name: weight is [outputs, inputs]."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layout:
    """Where each tensor of an adapter lies in a `Params` vector: for each module A [rank, inputs], B [outputs, rank].

    The effective update of a module is (alpha / rank) * B @ A. The order of `modules` is the base model's own and part
    of the contract: noise is a function of the tensor's index. `invocation` are the token ids that switch the adapter
    on (activation `answer`: it acts from the start of their last occurrence); empty, it acts on every token (`all`).
    """

    rank: int
    alpha: float
    modules: tuple[Module, ...]
    invocation: tuple[int, ...] = ()

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes in order: A of module 0, B of module 0, A of module 1, ..."""
        return tuple(s for m in self.modules for s in ((self.rank, m.inputs), (m.outputs, self.rank)))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor of `shapes`, and last the size P."""
        return tuple(int(x) for x in np.cumsum([0, *(a * b for a, b in self.shapes)]))

    @property
    def size(self) -> int:
        return self.offsets[-1]

    @cached_property
    def below(self) -> int:
        """How many transformer layers lie below the first that it acts on, by the first number in its modules' names:
        what goes through them is the base model's own."""
        return min(next((int(p) for p in m.name.split(".") if p.isdigit()), 0) for m in self.modules)

    def tensor(self, params: Params, index: int) -> NDArray[np.float32]:
        """A view of tensor `index` (2 m is A, 2 m + 1 is B of module m) in its shape."""
        return params[self.offsets[index] : self.offsets[index + 1]].reshape(self.shapes[index])

    def pairs(self, params: Params) -> Iterator[tuple[Module, NDArray[np.float32], NDArray[np.float32]]]:
        """(module, A view, B view) in order."""
        for i, module in enumerate(self.modules):
            yield module, self.tensor(params, 2 * i), self.tensor(params, 2 * i + 1)


@dataclass(frozen=True)
class Wearable:
    """An adapter as requests may wear it. `name` is its content: never two contents under one name. `params` are
    [layout.size] and nobody writes to them."""

    name: str
    layout: Layout
    params: Params = field(repr=False)


@dataclass(frozen=True)
class Candidate:
    """One scored text: the logits of row positions[j] of sequence `sequence` predict the token targets[j]."""

    sequence: int
    positions: NDArray[np.int32]  # [tokens]
    targets: NDArray[np.int32]  # [tokens]


@dataclass(frozen=True)
class Example:
    """One row of a dataset, ready to be scored. `sequences` are what is forwarded: candidates share a sequence where
    one's input is a prefix of the other's, and the first `shared` tokens are common to all sequences where there are
    several (0 where there is one), so each forwarded token is paid for once.

    `start` is where an adapter of activation `answer` begins to act, in every sequence (0 for activation `all`): the
    tokens before it are the base model's alone and are computed once, whatever the probe.
    """

    sequences: tuple[NDArray[np.int32], ...]
    candidates: tuple[Candidate, ...]
    label: int = 0
    shared: int = 0
    start: int = 0

    @cached_property
    def tokens(self) -> int:
        """Scored tokens of a visit: forward positions paid for by every probe."""
        return sum(map(len, self.sequences)) - (len(self.sequences) - 1) * self.shared - self.start

    @property
    def prompt(self) -> NDArray[np.int32]:
        """The tokens before `start`, paid for once a job."""
        return self.sequences[0][: self.start]

    @cached_property
    def prompt_key(self) -> bytes:
        """What prompts are told apart by: their ids themselves, so that no two can be confused."""
        return self.prompt.tobytes()


@dataclass(frozen=True)
class Trial:
    """A probe and its minibatch, the unit the engine batches. `params` None is the bare base model. `scope` says whose
    it is: whether a prompt was computed before is known, and can be timed, within a scope only. `greedy` asks of every
    target, too, whether it is the likeliest token: one more pass over the logits, which no probe needs. `tangent` and
    `gradient` ask for derivatives of the mean loss, as a method's probe does: only a scorer with autograd has them. Of
    tensors before number `since` of the layout the gradient is 0, and no backward pass goes there. `drift` asks for
    something else in the targets' places: minus KL(base || probe), nats, of what a target would be drawn from, so that
    what `lm` adds up is the mean divergence."""

    layout: Layout | None
    params: Params | None
    examples: tuple[Example, ...]
    objective: str  # a name in `worker.objectives`: what the measures of its examples amount to
    scope: str = ""
    greedy: bool = False
    tangent: Params | None = None
    gradient: bool = False
    since: int = 0
    drift: bool = False

    @property
    def below(self) -> int:
        """How many layers of the model lie below its probe."""
        return 0 if self.layout is None or self.params is None else self.layout.below

    @property
    def differentiated(self) -> bool:
        """Whether it needs autograd."""
        return self.gradient or self.tangent is not None

    @property
    def forwards(self) -> int:
        """Forward passes that it costs."""
        if self.drift:
            return BESIDE
        return GRADIENT if self.gradient else TANGENT if self.tangent is not None else 1

    @property
    def tokens(self) -> int:
        """Scored tokens that it costs."""
        return self.forwards * sum(e.tokens for e in self.examples)


@dataclass(frozen=True)
class Loss:
    """What the engine returns for a trial. `total` is a sum over `count` terms (scored target tokens for lm, examples
    for choice), in nats, float64; `hits` counts correct terms, None where that was not measured. Not finite where the
    engine's answer was not.

    `rows` are the sum and the number of terms of each example, empty where they are not known: the noise of `mean` as a
    sample of rows follows from them. `slope` is the derivative of `mean` along the trial's tangent, and `gradient` that
    by its params, float32 [P]: None where they were not asked for."""

    total: float
    count: int
    hits: int | None
    tokens: int  # scored tokens paid
    rows: tuple[tuple[float, int], ...] = field(default=(), compare=False, repr=False)
    slope: float | None = None
    gradient: Params | None = field(default=None, compare=False, repr=False)

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def accuracy(self) -> float | None:
        return None if self.hits is None else self.hits / self.count


def blank(trials: Sequence[Trial]) -> list[LogProbs]:
    """Places for every candidate's log-probabilities, NaN until filled."""
    return [
        [[np.full(len(c.targets), np.nan, np.float32) for c in example.candidates] for example in trial.examples]
        for trial in trials
    ]


def unseen(trials: Sequence[Trial]) -> list[Greedy | None]:
    """Places for what `greedy` trials ask, False until filled; None for the others."""
    return [
        [[np.zeros(len(c.targets), np.bool_) for c in example.candidates] for example in trial.examples]
        if trial.greedy
        else None
        for trial in trials
    ]
