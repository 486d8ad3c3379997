"""Random identifiers, API keys, and the names of adapters and of their steps. Knows no table."""

import re
import secrets
import string

ALPHABET = string.ascii_lowercase + string.digits
KEY_PREFIX = "sk-onward-"


class UnknownCursor(ValueError):
    """A page was asked for after what is not in the list."""

    def __init__(self, after: str) -> None:
        super().__init__(after)
        self.after = after


def new_id(prefix: str) -> str:
    """`prefix` and 24 random lower-case letters and digits (124 bits): safe in a URL and as a folder's name."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(24))


def new_key() -> str:
    """A secret API key: 256 random bits in 43 URL-safe characters after `sk-onward-`."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def adapter_name(model: str, tenant_id: str, suffix: str | None, job_id: str) -> str:
    """ft:<model>:<tenant>:<suffix>:<id>, under which a job's adapter is published: unique because the job's id is."""
    return ":".join(("ft", model, tenant_id.partition("_")[2], suffix or "", job_id.partition("-")[2]))


def checkpoint_name(adapter: str, step: int) -> str:
    """What the adapter of that name was after `step` steps."""
    return f"{adapter}:ckpt-step-{step}"


def of_checkpoint(name: str) -> tuple[str, int] | None:
    """The adapter's name and the step that `checkpoint_name` has put together."""
    found = re.fullmatch(r"(ft:.+):ckpt-step-(0|[1-9]\d{0,6})", name)
    return None if found is None else (found[1], int(found[2]))


def live_name(adapter: str) -> str:
    """What the adapter of that name is while its job trains."""
    return f"{adapter}:live"


def of_live(name: str) -> str | None:
    """The adapter's name that `live_name` was given."""
    return name.removesuffix(":live") if name.startswith("ft:") and name.endswith(":live") else None


def worn(job_id: str, step: int) -> str:
    """What the adapter of a job after `step` steps is called in an engine: its content, not a tenant's name."""
    return f"{job_id}@{step}"


def job_of(name: str) -> str:
    """The id of the job whose adapter may have this name, whether it was published or not."""
    return f"ftjob-{name.rpartition(':')[2]}"


def step_file(job_id: str, step: int) -> str:
    """The id under which the adapter of a job after `step` steps is fetched as a file."""
    return f"file-{job_id.partition('-')[2]}-step-{step}"


def of_step_file(file_id: str) -> tuple[str, int] | None:
    """The job's id and the step that `step_file` has put together."""
    found = re.fullmatch(r"file-([a-z0-9]+)-step-(0|[1-9]\d{0,6})", file_id)
    return None if found is None else (f"ftjob-{found[1]}", int(found[2]))
