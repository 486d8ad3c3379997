"""Random identifiers and API keys. Knows no table."""

import secrets
import string

ALPHABET = string.ascii_lowercase + string.digits
KEY_PREFIX = "sk-onward-"


def new_id(prefix: str) -> str:
    """`prefix` and 24 random lower-case letters and digits (124 bits): safe in a URL and as a folder's name."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(24))


def new_key() -> str:
    """A secret API key: 256 random bits in 43 URL-safe characters after `sk-onward-`."""
    return KEY_PREFIX + secrets.token_urlsafe(32)
