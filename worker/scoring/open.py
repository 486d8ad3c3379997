"""The one scorer of a process, opened, checked and watched: the only place that tells scorers apart by name."""

from pathlib import Path
from typing import Any

import huggingface_hub

from db.contract.tokens.base_model import Base
from db.telemetry.version import VERSION
from worker import metrics
from worker.engine import processor
from worker.engine.prompt_cache import PromptCache
from worker.quantisation import tolerance
from worker.scoring import cost_line
from worker.scoring.canary import Canary
from worker.scoring.canary import trial as canary_trial
from worker.scoring.metered import MeteredScorer, OwnerMeter
from worker.scoring.scorer import Scorer
from worker.settings import WorkerSettings
from worker.types import Module

SLACK = 0.1  # of a decode step: by how much more what rides along may lengthen it


def open_scorer(settings: WorkerSettings, base: Base) -> tuple[MeteredScorer, dict[str, Any]]:
    """The one engine of this process, checked, with its canary, and what to tell about it. Raises CannotCompute where
    its losses would not be right here: its dtype, its base's format, or what the self-check found."""
    processor.named(settings.dtype)  # before anything is fetched
    weights = base.source if Path(base.source).is_dir() else huggingface_hub.snapshot_download(base.source)
    about: dict[str, Any] = {"onward": VERSION, "scorer": settings.scorer, "dtype": settings.dtype}
    about["processor"] = processor.level()
    if settings.scorer == "torch":
        from worker.oracle.torch_scorer import TorchScorer

        processor.require(settings.dtype)
        kept: PromptCache[Any] = PromptCache(settings.prompt_bytes)
        plain = TorchScorer(weights, dtype=settings.dtype, threads=settings.threads or None, kept=kept)
        metrics.prompt_limit_bytes.labels(base.name).set(kept.budget)
        about |= _training(plain, settings, base)
        return MeteredScorer(_with_canary(plain, settings, base, weights), base.name, kept), about
    return _with_engine(settings, base, weights, about), about


def _with_engine(settings: WorkerSettings, base: Base, weights: str, about: dict[str, Any]) -> MeteredScorer:
    """On vLLM; adds to `about`."""
    from worker.engine.graphs import want
    from worker.engine.roofline import peak_flops
    from worker.scoring.engine_scorer import EngineScorer
    from worker.scoring.self_check import self_check

    if settings.serve_graphs:
        want()
    engine = EngineScorer(
        weights,
        slots=settings.slots,
        max_rank=settings.max_rank,
        max_tokens=settings.max_tokens,
        dtype=settings.dtype,
        serve_slots=settings.serve_slots,
        serve_tokens=settings.serve_tokens,
        serve_cache=settings.serve_cache_tokens,
        train_share_min=settings.train_share_min,
        prompt_bytes=settings.prompt_bytes,
        name=base.name,
        graphs=settings.serve_graphs,
    )
    about |= self_check(engine) if settings.self_check else engine.engine.versions()
    engine.owner.told = OwnerMeter(base.name)
    about["room"] = engine.curve().room(1, SLACK)
    about |= _training(engine, settings, base)
    metrics.prompt_limit_bytes.labels(base.name).set(engine.prompt_cache.budget)
    peak = engine.owner.run(lambda: peak_flops(engine.engine.device.type, settings.dtype))  # with the engine's threads
    metrics.peak_flops.labels(base.name).set(peak)
    metrics.token_flops.labels(base.name).set(2.0 * sum(i * o for _, i, o in base.modules))
    watched = _with_canary(engine, settings, base, weights)
    return MeteredScorer(watched, base.name, engine.prompt_cache, engine)


def _training(scorer: Scorer, settings: WorkerSettings, base: Base) -> dict[str, Any]:
    """What a forward of training takes here by its tokens, for the worker's row; nothing where the context or a pass is
    too short to tell."""
    modules = tuple(Module(*m) for m in base.modules)
    try:
        line = cost_line.of(scorer, modules, base.context, base.vocab, settings.max_tokens, settings.max_rank)
    except ValueError:
        return {}
    metrics.training_fixed_seconds.labels(base.name).set(line.fixed)
    metrics.training_token_seconds.labels(base.name).set(line.token)
    metrics.training_line_error.labels(base.name).set(line.error)
    return {"training": line.told()}


def _with_canary(scorer: Scorer, settings: WorkerSettings, base: Base, weights: str) -> Canary:
    modules = tuple(Module(*m) for m in base.modules)
    limit = tolerance(weights, settings.dtype)
    metrics.canary_limit_nats.labels(base.name).set(limit)

    def seen(nats: float) -> None:
        metrics.canaries.labels(base.name).inc()
        metrics.canary_nats.labels(base.name).set(nats)

    return Canary(scorer, canary_trial(modules, base.context, base.vocab), settings.canary_seconds, seen, limit)
