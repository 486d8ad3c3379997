"""What the settings of every method have in common, and what a preset is. Knows no method's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.contract.refusal import Unfit
from db.contract.tokens.architectures import Linear

Activation = Literal["all", "answer"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RANK: Final = 64  # of an adapter at most, unless a method is made for more
WIDEST: Final = 512  # of any adapter
SCALING = 2.0  # alpha / rank, of every preset
ATTENTION = ("q_proj", "v_proj")  # in every supported architecture
ANY_ROWS: Final = 1 << 30  # more than a file has
A_RADIUS = (1e-6, 1.0)  # of a probe of A, as eps is one of B


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Preset:
    """Values for one kind of job. `settings` are fields of the method's settings beside its name; `epochs` are visits
    of a row at most where neither steps nor n_epochs were asked for: a small file, fewer steps. `last` is how many of
    the last layers an adapter acts on, 0 for all; of a base that has no more than those, all."""

    steps: int
    batch_size: int = 16
    repeat: int = 1
    eval_every: int = 50
    eval_rows: int = 200
    rank: int = 8
    alpha: float = 8 * SCALING
    targets: tuple[str, ...] = ATTENTION
    last: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 100


@dataclass(frozen=True)
class Line:
    """A method's preset for jobs of this kind: patterns of the base model's name and of the objective's, as
    `fnmatch` reads them, and the activation."""

    model: str
    objective: str
    activation: Activation
    preset: Preset


@dataclass(frozen=True)
class Evidence:
    """What the study measured of a method at its own best `preset` for jobs of this kind: the least `seconds` win.

    `model` and `objective` are patterns as a Line's. `seconds` are processor seconds, prompts counted and evaluation
    not, until the held-out loss first is the `target` (nats a row); `accuracy` and `spread` (standard deviation over
    seeds of the loss, nats) are those of the run's end. All are means over `seeds` and the study's tasks; `seconds` is
    None where a run did not get there or was not measured, the other two where nothing was. `autograd` as the method's.
    """

    model: str
    objective: str
    activation: Activation
    method: str
    preset: Preset
    target: float
    seconds: float | None
    accuracy: float | None
    spread: float | None
    seeds: int
    autograd: bool


@dataclass(frozen=True)
class About:
    """What a method is, in words for tenants: its `formula`, `forwards` a step (q: queries), `state` beside the
    adapter, what it `needs`, the `use` it is for, and its `source`."""

    formula: str
    forwards: str
    state: str
    use: str
    source: str
    needs: str = "-"


@dataclass(frozen=True)
class Beside:
    """What some steps score of other rows than their minibatch: at each step whose number is a multiple of `every`,
    `probes` of the first `rows` rows of the job's walk, which the setting `field` counts."""

    field: str
    rows: int
    probes: int
    every: int

    def times(self, steps: int) -> int:
        """How often that is in the first `steps` steps."""
        return -(-steps // self.every)


class MethodSettings(Frozen):
    """What the settings of every method have: beside these a `name`, and `most` probes a step to be priced by.

    `replay` says what an adapter is rebuilt from: its `journal` of scalars, or `snapshots`, points of the run kept
    whole. `autograd` says that a worker needs derivatives: it runs where a worker with the torch scorer is registered.
    `numbers` are those of the journal's row for each probe: its loss, and where there are 2 its slope.
    """

    presets: ClassVar[tuple[Line, ...]] = ()  # first match wins
    about: ClassVar[About]
    replay: ClassVar[Literal["journal", "snapshots"]] = "journal"
    autograd: ClassVar[bool] = False
    numbers: ClassVar[int] = 1
    # Narrower than the schema, which must read what earlier releases have accepted: asked at admission, both ends
    # included.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    learning_rate: float = Field(gt=0, le=10)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, le=1)

    @property
    def probes(self) -> int:
        """Probes a step at most, over all its phases, in forward passes: what a step is priced by."""
        raise NotImplementedError

    @property
    def beside(self) -> Beside | None:
        """What some steps score of other rows than their minibatch, and are priced by beside `probes`."""
        return None

    @property
    def most_rank(self) -> int:
        """The highest rank of an adapter that these settings are for."""
        return RANK

    def check(self, rank: int) -> None:
        """Raises Unfit where these settings do not go with an adapter of this rank."""

    def check_modules(self, modules: Sequence[Linear], rank: int) -> None:
        """Raises Unfit where these settings do not go with an adapter of this rank on these `modules`, of which there
        is at least one, in model order. Asked at admission, where the base model is known."""

    def check_rows(self, rows: int) -> None:
        """Raises Unfit where these settings do not go with so many rows to train on. Asked at admission."""
        if self.beside is not None and self.beside.rows > rows:
            field = self.beside.field
            raise Unfit(field, f"{field} is {self.beside.rows}: at most {rows}, the rows that are trained on")

    @classmethod
    def suited(cls, rank: int, rows: int = ANY_ROWS) -> dict[str, Any]:
        """Fields whose default depends on the adapter's rank, or on how many rows are trained on."""
        del rank, rows
        return {}


class ProbedSettings(MethodSettings):
    """Settings of a method that estimates along random directions.

    `eps` is the probe radius, `queries` the probe pairs (two_point), probes beside the centre (one_sided) or probes
    (population: the mean of the others is each one's baseline) a step, `clip` bounds the absolute projected gradient
    |c|. A method adds its `name` and settings of its own.
    """

    # eps / 4, the smallest change of a probe, is above the spacing of float32 at 1, and with `clip` no sum of a
    # million steps leaves float32.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "eps": (1e-6, 1),
        "learning_rate": (1e-9, 10),
        "clip": (1e-6, 1e6),
    }
    estimator: Literal["two_point", "one_sided", "population"] = "two_point"
    queries: int = Field(default=1, ge=1, le=64)
    eps: float = Field(gt=0, le=1)
    clip: Positive | None = None

    @property
    def probes(self) -> int:
        """Two-sided n-SPSA scores each of n directions twice, one-sided n directions and the centre."""
        match self.estimator:
            case "two_point":
                return 2 * self.queries
            case "one_sided":
                return self.queries + 1
            case "population":
                return self.queries

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.estimator == "population" and self.queries < 2:
            raise Unfit("queries", "a population needs at least 2 queries: its baseline is the others' mean")


class DescentSettings(ProbedSettings):
    """Settings of a method that steps against its estimate by one of several optimizers (`worker/zo/descent.py`):
    `momentum` is beta 1 and `beta2` beta 2 of an optimizer that has them. A method adds the optimizers it takes."""

    # Decays stay below 1 in float32.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **ProbedSettings.ranges,
        "momentum": (0, 0.99999),
        "beta2": (0, 0.999999),
    }
    momentum: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)


HALVES: Final[Mapping[str, tuple[float, float]]] = {"a_factor": (0, 10), "a_from": (0, 1_000_000)}


class HalvesSettings(MethodSettings):
    """What a method on the adapter's own entries may be told of its two sides. `a_factor` is what A's noise is
    multiplied by: 0 leaves A as it began and moves B alone. Before step `a_from` A stays as it is whatever its
    factor."""

    eps: float = Field(gt=0, le=1)
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    a_from: int = Field(default=0, ge=0)

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.a_from and not self.a_factor:
            raise Unfit("a_from", "with a_factor 0 A never joins")
        low, high = A_RADIUS
        if self.a_factor not in (0, 1) and not low <= self.a_factor * self.eps <= high:
            between = f"{low / self.eps:g} to {high / self.eps:g}"
            raise Unfit("a_factor", f"with eps {self.eps:g} A's factor may be 0, 1 or {between}")


class AdapterSettings(HalvesSettings, DescentSettings):
    """Settings of a descent on the adapter's own entries."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**DescentSettings.ranges, **HALVES}


def room_for(density: float, modules: Sequence[Linear], rank: int) -> None:
    """Raises Unfit where a share `density` of the smallest tensor's entries is less than half of one."""
    least = rank * min(size for _, inputs, outputs in modules for size in (inputs, outputs))
    if density * least < 0.5:
        raise Unfit("density", f"density {density:g} leaves a tensor of {least} entries none")
