"""What a tenant may send to create a job: OpenAI's fields and ours under `onward`. Knows shapes and types; ranges are
the spec's (`db/contract/spec.py`) and the model's (`api/jobs/admission.py`)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"] | None
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL holds no NUL
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
MAX_PAIRS = 16


class Strict(BaseModel):
    """Unknown keys and wrong types are refused: a number as a string is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Hyperparameters(Strict):
    """OpenAI's. `n_epochs` sets the steps where `onward.steps` does not; the multiplier scales the preset's rate."""

    batch_size: Annotated[int, Field(ge=1)] | Auto = None
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = None
    n_epochs: Annotated[int, Field(ge=1, le=1_000_000)] | Auto = None


class Supervised(Strict):
    hyperparameters: Hyperparameters | None = None


class Method(Strict):
    type: Literal["supervised"]
    supervised: Supervised | None = None


class Onward(Strict):
    """Ours. Absent, null and "auto" mean the preset of the model and task.

    The exception is `activation`: absent or null it is "all", a plain LoRA, which every PEFT runtime and an unmodified
    vLLM serve. With "answer" the adapter acts from the last `invocation` on (PEFT's activated LoRA): a text that every
    prompt has or, absent, null or "auto", the common end of all prompts. "auto" is "answer" where all rows allow it,
    nothing to be learned is dropped and a visit to a row costs a quarter at most, else "all".
    """

    method: Literal["mezo", "lozo", "auto"] | None = None
    objective: Literal["lm", "choice", "auto"] | None = None
    estimator: Literal["two_point", "one_sided", "auto"] | None = None
    optimizer: Literal["sgd", "momentum", "adam", "auto"] | None = None
    schedule: Literal["constant", "linear", "cosine", "auto"] | None = None
    refresh: Literal["bank", "freeze", "recompress", "auto"] | None = None
    rank: int | Auto = None
    alpha: Finite | Auto = None
    activation: Literal["all", "answer", "auto"] | None = None
    invocation: Identifier | None = None
    targets: Annotated[list[Identifier], Field(min_length=1, max_length=64)] | Auto = None
    steps: int | Auto = None
    batch_size: Annotated[int, Field(ge=1)] | Auto = None
    repeat: int | Auto = None
    learning_rate: Finite | Auto = None
    warmup_steps: int | Auto = None
    eps: Finite | Auto = None
    queries: int | Auto = None
    clip: Finite | Auto = None
    momentum: Finite | Auto = None
    beta2: Finite | Auto = None
    weight_decay: Finite | Auto = None
    nu: int | Auto = None
    window_rank: int | Auto = None
    eval_every: int | Auto = None
    eval_rows: int | Auto = None
    seed: int | None = None
    token_budget: int | None = Field(default=None, ge=1, lt=2**63)


class JobCreate(Strict):
    """The body of POST /v1/fine_tuning/jobs."""

    model: Identifier
    training_file: Identifier
    validation_file: Identifier | None = None
    suffix: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    seed: int | None = None
    metadata: (
        Annotated[
            dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]],
            Field(max_length=MAX_PAIRS),
        ]
        | None
    ) = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    integrations: None = Field(default=None, description="Not supported: null or absent.")
    onward: Onward = Onward()
