"""What the worker counts, for Prometheus. Labels are the base model and the tenant's class, never an id."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from db.telemetry.version import VERSION

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for

MODEL = ("model",)
TENANT = ("model", "tenant_class")
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WAITS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 14400.0)
OUTCOMES = ("found", "computed", "evicted")
TENTHS = tuple(n / 10 for n in range(1, 11))

scored_tokens = Counter("onward_scored_tokens_total", "Tokens whose forward pass was paid for.", TENANT)
steps = Counter("onward_steps_total", "Steps taken: ask, score, tell.", TENANT)
forwards = Counter("onward_forwards_total", "Trials scored: one probe on one minibatch.", MODEL)
step_seconds = Histogram("onward_step_seconds", "Time of one step of the cohort.", MODEL, buckets=SECONDS)
scoring_seconds = Histogram("onward_scoring_seconds", "Part of a step spent in the engine.", MODEL, buckets=SECONDS)
batch_fill = Histogram("onward_batch_fill", "Trials over the places of the waves they took.", MODEL, buckets=TENTHS)
adapters_per_batch = Histogram(
    "onward_adapters_per_batch", "Adapters in one engine batch.", MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
queue_wait_seconds = Histogram(
    "onward_queue_wait_seconds", "From a job's creation to its first claim.", TENANT, buckets=WAITS
)
wait_estimate_ratio = Histogram(
    "onward_wait_estimate_ratio",
    "The wait foretold when a job was made over its wait to the first claim, both one second at least.",
    MODEL,
    buckets=(0.1, 0.2, 0.5, 0.8, 1.25, 2.0, 5.0, 10.0),
)
prompts = Counter(
    "onward_prompts_total", "Prompts that activated adapters continue, found or computed.", (*MODEL, "outcome")
)
prompt_bytes = Gauge("onward_prompt_bytes", "Bytes of keys and values of prompts that are kept.", MODEL)
prompt_limit_bytes = Gauge("onward_prompt_limit_bytes", "The most that kept prompts may take.", MODEL)
lease_expiries = Counter("onward_lease_expiries_total", "Jobs taken over from a lease that had expired.", MODEL)
fenced_writes = Counter("onward_fenced_writes_total", "Writes refused because the fencing token was old.", MODEL)
nonfinite_losses = Counter("onward_nonfinite_losses_total", "Losses that were not finite.", MODEL)
journal_lag_seconds = Gauge("onward_journal_lag_seconds", "Age of the oldest step not yet committed.", MODEL)
replay_seconds = Histogram("onward_replay_seconds", "Time to rebuild a run from its journal.", MODEL, buckets=SECONDS)
published_adapters = Counter("onward_published_adapters_total", "Adapters published.", TENANT)
resident_runs = Gauge("onward_resident_runs", "Runs kept in memory between slices.", MODEL)
cohort_runs = Gauge("onward_cohort_runs", "Runs stepping together now.", MODEL)
cohort_limit = Gauge("onward_cohort_limit", "The most runs that step together.", MODEL)
jobs_ended = Counter("onward_jobs_ended_total", "Runs that came to an end here.", (*MODEL, "outcome"))
slices = Counter("onward_slices_total", "Slices taken.", MODEL)
slice_errors = Counter("onward_slice_errors_total", "Slices that the database's absence ended early.", MODEL)
engine_failures = Counter("onward_engine_failures_total", "Batches that the engine failed at.", MODEL)
out_of_service = Gauge(
    "onward_worker_out_of_service", "1 while this worker takes no work, by the reason.", (*MODEL, "reason")
)
engine_seconds = Counter(
    "onward_engine_seconds_total", "Time of the engine, by who had it: serving or training.", (*MODEL, "use")
)
pauses = Counter("onward_pauses_total", "Pauses of a scoring forward for what is served.", MODEL)
paused_seconds = Counter(
    "onward_paused_seconds_total",
    "Time that training stood, within a forward or before it, while serving went on.",
    MODEL,
)
canaries = Counter("onward_canaries_total", "Canary trials scored among tenants' trials.", MODEL)
canary_nats = Gauge("onward_canary_nats", "Loss of the last canary among others less its loss alone, a token.", MODEL)
canary_limit_nats = Gauge("onward_canary_limit_nats", "What the canary may differ by in this dtype.", MODEL)
peak_flops = Gauge("onward_peak_flops", "Best rate of multiplications measured at the start, FLOP/s.", MODEL)
token_flops = Gauge("onward_token_flops", "FLOP of one scored token in the base model's matrices.", MODEL)
training_fixed_seconds = Gauge(
    "onward_training_fixed_seconds", "What a forward of training takes whatever it scores, at the start.", MODEL
)
training_token_seconds = Gauge("onward_training_token_seconds", "What a scored token adds to that.", MODEL)
training_line_error = Gauge(
    "onward_training_line_error", "Largest relative difference of a measured forward from that line.", MODEL
)
engine_ready = Gauge("onward_engine_ready", "1 once the engine is loaded and checked.", MODEL)
engine_start_seconds = Gauge("onward_engine_start_seconds", "Time to load and check the engine.", MODEL)
doorbells = Counter("onward_doorbells_total", "Doorbells, by what became of them.", (*MODEL, "outcome"))
home_free_bytes = Gauge("onward_home_free_bytes", "Free space where adapters and snapshots are kept.")
home_bytes = Gauge("onward_home_bytes", "Size of the file system where adapters and snapshots are kept.")
serve_first_token_seconds = Histogram(
    "onward_serve_first_token_seconds", "From a streamed request's arrival to its first token.", MODEL, buckets=SECONDS
)
serve_inter_token_seconds = Histogram(
    "onward_serve_inter_token_seconds", "Between two outputs of a streamed request.", MODEL, buckets=SECONDS
)
serve_wait_seconds = Histogram(
    "onward_serve_wait_seconds", "From a request's arrival to its start in the engine.", MODEL, buckets=SECONDS
)
serve_tokens = Counter("onward_serve_tokens_total", "Tokens generated for requests.", MODEL)
serve_prompt_tokens = Counter(
    "onward_serve_prompt_tokens_total", "Tokens of prompts of requests, by where they came from.", (*MODEL, "outcome")
)
serve_queued_tokens = Gauge("onward_serve_queued_tokens", "Tokens of requests that wait for the engine.", MODEL)
serve_queue_limit_tokens = Gauge("onward_serve_queue_limit_tokens", "The most tokens that may wait.", MODEL)
serve_running = Gauge("onward_serve_running", "Requests in the engine.", MODEL)
serve_aborts = Counter("onward_serve_aborts_total", "Requests ended before their end, by why.", (*MODEL, "reason"))
serve_refusals = Counter("onward_serve_refusals_total", "Requests refused or failed, by the code.", (*MODEL, "code"))
serve_adapters = Gauge("onward_serve_adapters", "Adapters in the engine's places.", MODEL)
serve_places = Gauge("onward_serve_places", "Places of the engine for adapters of requests.", MODEL)
serve_adapters_made = Counter("onward_serve_adapters_made_total", "Adapters made to be worn.", MODEL)
serve_adapters_evicted = Counter("onward_serve_adapters_evicted_total", "Adapters that made place for another.", MODEL)
build_info = Gauge(
    "onward_build_info", "1; the labels say what runs.", ("component", "version", "vllm", "torch", "dtype", "scorer")
)
REASONS = ("disk", "store", "engine", "canary")
REFUSED = ("overloaded", "draining", "adapter_unknown", "adapter_unfit", "invalid_value", "internal_error")
ABORTS = ("client", "deadline", "drain", "slow_reader", "engine", "refused")
PROMPTED = ("computed", "cached")
ENDINGS = (
    "succeeded", "nonfinite_loss", "token_budget", "engine_refused", "unreadable_rows", "out_of_memory",
    "internal_error", "cancelled", "paused",
)  # fmt: skip


def zero(model: str) -> None:
    """Make every series of `model` visible before its first event, so that a rate starts from 0."""
    counters = (forwards, lease_expiries, fenced_writes, nonfinite_losses, slices, slice_errors, engine_failures)
    serving_too = (
        pauses, paused_seconds, serve_wait_seconds, serve_tokens, serve_adapters_made, serve_adapters_evicted
    )  # fmt: skip
    for family in (*counters, canaries, replay_seconds, wait_estimate_ratio, *serving_too):
        family.labels(model)
    told_apart: tuple[tuple[Counter, tuple[str, ...]], ...] = (
        (prompts, OUTCOMES), (jobs_ended, ENDINGS), (doorbells, ("rung", "lost")),
        (engine_seconds, ("serving", "training")), (serve_aborts, ABORTS), (serve_prompt_tokens, PROMPTED),
        (serve_refusals, REFUSED),
    )  # fmt: skip
    for family, values in told_apart:
        for value in values:
            family.labels(model, value)
    for family in (serve_first_token_seconds, serve_inter_token_seconds):
        family.labels(model)
    for reason in REASONS:
        out_of_service.labels(model, reason).set(0)
    serving = (serve_queued_tokens, serve_running, serve_adapters)
    for gauge in (
        prompt_bytes, journal_lag_seconds, resident_runs, cohort_runs, canary_nats, engine_ready, *serving
    ):  # fmt: skip
        gauge.labels(model).set(0)


def watch_disk(home: Path) -> None:
    """Read the file system's free space at every scrape."""
    home.mkdir(parents=True, exist_ok=True)
    home_free_bytes.set_function(lambda: shutil.disk_usage(home).free)
    home_bytes.set(shutil.disk_usage(home).total)


def say_build(about: Mapping[str, object]) -> None:
    build_info.labels("worker", VERSION, *(str(about.get(x, "")) for x in ("vllm", "torch", "dtype", "scorer"))).set(1)
