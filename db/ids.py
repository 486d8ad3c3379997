"""Random identifiers, API keys and adapters' names. Knows no table."""

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
