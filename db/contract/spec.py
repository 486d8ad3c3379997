"""The stored contract of a job: frozen, validated, everything the journal needs to be replayed. Knows no SQL."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from db.contract import methods
from db.contract.methods import MethodSpec
from db.contract.methods.base import WIDEST, Activation, Frozen, Positive
from db.contract.objectives import OBJECTIVES
from db.contract.refusal import Unfit

# Of the specs that this code writes. Raise it with whatever the release before cannot read, a field or a method: its
# workers then leave the job to those that can.
SPEC_VERSION: Final = 4


class AdapterSpec(Frozen):
    """A LoRA adapter: `rank`, `alpha` (scaling is alpha / rank) and the suffixes of the linear modules it acts on.

    `activation` says on which tokens: `all`, or from the last occurrence of the token ids `invocation` on (`answer`:
    PEFT's activated LoRA, arXiv 2504.12397). `layers` are the numbers of the transformer layers it acts on, the last
    ones; where there are none, all.
    """

    rank: int = Field(ge=1, le=WIDEST)
    alpha: Positive
    targets: tuple[str, ...] = Field(min_length=1)
    activation: Activation = "all"
    invocation: tuple[int, ...] = Field(default=(), max_length=64)
    # Not written where it says nothing: digests of specs that knew no layers stand.
    layers: tuple[NonNegativeInt, ...] = Field(default=(), exclude_if=lambda layers: not layers)

    @property
    def depth(self) -> str:
        """`layers` as a request says them."""
        return f"last:{len(self.layers)}" if self.layers else "all"

    @model_validator(mode="after")
    def _answer_has_an_invocation(self) -> "AdapterSpec":
        if (self.activation == "answer") != bool(self.invocation):
            raise Unfit("invocation", "invocation belongs to activation 'answer', which needs it")
        return self

    @model_validator(mode="after")
    def _layers_follow_one_another(self) -> "AdapterSpec":
        if self.layers and self.layers != tuple(range(self.layers[0], self.layers[-1] + 1)):
            raise Unfit("layers", "layers are the last ones, in order")
        return self


OnDivergence = Literal["stop", "restart", "continue"]


class ParentSpec(Frozen):
    """The adapter that a job goes on from: after `step` steps of the job `job` of the same tenant, with the SHA-256
    (hex) `sha256` of its adapter_model.safetensors. Its layout is the child's."""

    job: str
    step: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _known(objective: str) -> str:
    if objective not in OBJECTIVES:
        raise ValueError(f"the objective should be {' or '.join(map(repr, OBJECTIVES))}")
    return objective


class JobSpec(Frozen):
    """What a tenant asked for, every `auto` resolved. `steps` counts ask-score-tell rounds; tokens are scored tokens.

    Each minibatch of `batch_size` rows serves `repeat` steps in a row, with fresh directions each.
    Evaluation happens at step 0, every `eval_every` steps and after the last step, on the first `eval_rows` rows of
    the validation file, or of the `held_out` rows of the training file that are not trained on (`sampling.split`); 0
    rows where there are none. `on_divergence` says what is done where the held-out loss has left its start: end with
    the best adapter (`stop`), go on from it at half the rate, `max_restarts` times at most and then stop (`restart`),
    or nothing (`continue`); after `patience` evaluations in a row without a better one the job stops too. Of the rules
    between its parts, the first that does not hold is
    raised as Unfit, in pydantic's ValidationError.
    """

    model: str
    objective: Annotated[str, AfterValidator(_known)]
    adapter: AdapterSpec
    method: MethodSpec
    training_file: str
    validation_file: str | None = None
    steps: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1, le=1024)
    repeat: int = Field(default=1, ge=1, le=1000)
    eval_every: int = Field(ge=1)
    eval_rows: int = Field(default=0, ge=0)
    held_out: int = Field(default=0, ge=0)
    seed: int = Field(ge=0, lt=2**63)
    token_budget: int | None = Field(default=None, ge=1)
    suffix: str | None = Field(default=None, max_length=64)
    parent: ParentSpec | None = None
    on_divergence: OnDivergence = "continue"
    max_restarts: int = Field(default=2, ge=0, le=20)
    patience: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _measured_on_one_file(self) -> "JobSpec":
        if self.held_out and self.validation_file is not None:
            raise Unfit("held_out", "rows are held out where there is no validation file")
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> "JobSpec":
        if self.adapter.rank > self.method.most_rank:
            wide = f"only 'lozo' with refresh 'freeze' goes up to {WIDEST}"
            raise Unfit("rank", f"rank may be at most {self.method.most_rank} with these settings: {wide}")
        self.method.check(self.adapter.rank)
        if self.method.warmup_steps > self.steps:
            raise Unfit("warmup_steps", "warmup_steps must not exceed steps")
        return self

    @model_validator(mode="after")
    def _watched_where_measured(self) -> "JobSpec":
        if not self.eval_rows:
            if self.on_divergence != "continue":
                raise Unfit("on_divergence", f"'{self.on_divergence}' needs held-out rows to be evaluated on")
            if self.patience is not None:
                raise Unfit("patience", "patience needs held-out rows to be evaluated on")
        return self


def stored(row: Mapping[str, Any]) -> JobSpec:
    """The spec that a job's row holds, as any release since 0.1 has written it."""
    return JobSpec.model_validate({**row, "method": methods.stored(row["method"])})
