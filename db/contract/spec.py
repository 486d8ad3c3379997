"""The stored contract of a job: frozen, validated, everything the journal needs to be replayed. Knows no SQL."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Objective = Literal["lm", "choice"]
Activation = Literal["all", "answer"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterSpec(Frozen):
    """A LoRA adapter: `rank`, `alpha` (scaling is alpha / rank) and the suffixes of the linear modules it acts on.

    `activation` says on which tokens: `all`, or from the last occurrence of the token ids `invocation` on (`answer`:
    PEFT's activated LoRA, arXiv 2504.12397).
    """

    rank: int = Field(ge=1, le=64)
    alpha: Positive
    targets: tuple[str, ...] = Field(min_length=1)
    activation: Activation = "all"
    invocation: tuple[int, ...] = Field(default=(), max_length=64)

    @model_validator(mode="after")
    def _answer_has_an_invocation(self) -> "AdapterSpec":
        if (self.activation == "answer") != bool(self.invocation):
            raise ValueError("invocation belongs to activation 'answer', which needs it")
        return self


class MethodSpec(Frozen):
    """A zeroth-order method: an estimator and its transforms (`worker/runs/recipes.py` builds it).

    `eps` is the probe radius, `queries` the probe pairs (two_point) or probes beside the centre (one_sided) a step,
    `clip` bounds the absolute projected gradient |c|. `nu` and `window_rank` are LOZO's: V is redrawn every `nu`
    steps and U V^T has rank `window_rank`; `refresh` says what becomes of the rank when V is redrawn.
    """

    name: Literal["mezo", "lozo"]
    estimator: Literal["two_point", "one_sided"] = "two_point"
    queries: int = Field(default=1, ge=1, le=64)
    eps: float = Field(gt=0, le=1)
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    learning_rate: float = Field(gt=0, le=10)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    clip: Positive | None = None
    nu: int = Field(default=50, ge=1)
    window_rank: int = Field(default=2, ge=1, le=64)
    refresh: Literal["bank", "freeze", "recompress"] = "bank"

    @model_validator(mode="after")
    def _lozo_has_no_adam(self) -> "MethodSpec":
        if self.name == "lozo" and self.optimizer == "adam":
            raise ValueError("lozo takes sgd or momentum: moments of U lose their meaning when V is redrawn")
        return self


class JobSpec(Frozen):
    """What a tenant asked for, every `auto` resolved. `steps` counts ask-score-tell rounds; tokens are scored tokens.

    Each minibatch of `batch_size` rows serves `repeat` steps in a row, with fresh directions each.
    Evaluation happens at step 0, every `eval_every` steps and after the last step, on the first `eval_rows` rows of
    the validation file; 0 rows where there is none.
    """

    model: str
    objective: Objective
    adapter: AdapterSpec
    method: MethodSpec
    training_file: str
    validation_file: str | None = None
    steps: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1, le=1024)
    repeat: int = Field(default=1, ge=1, le=1000)
    eval_every: int = Field(ge=1)
    eval_rows: int = Field(default=0, ge=0)
    seed: int = Field(ge=0, lt=2**63)
    token_budget: int | None = Field(default=None, ge=1)
    suffix: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _lozo_fits_its_rank(self) -> "JobSpec":
        if self.method.name != "lozo":
            return self
        if self.method.window_rank > self.adapter.rank:
            raise ValueError("method.window_rank must not exceed rank: the window lives inside the adapter")
        if self.method.refresh == "recompress" and 2 * self.method.window_rank > self.adapter.rank:
            raise ValueError("recompress needs a rank of at least 2 * method.window_rank: the window and as much kept")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> "JobSpec":
        if self.method.warmup_steps > self.steps:
            raise ValueError("method.warmup_steps must not exceed steps")
        return self
