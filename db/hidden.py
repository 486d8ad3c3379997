"""What no text may show: passwords and API keys, hidden wherever they are met. Knows no setting's name.

A `SecretUrl` is a URL to whoever uses it, and shows none of its passwords to whoever prints it. What processes print
goes through `redacted`, for the messages of libraries that were handed the plain ones.
"""

import json
import re
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, PlainSerializer, SecretStr

STARS = "**********"
SHORTEST = 8  # characters of a password that is looked for in every line: a shorter one may be part of any word
API_KEY = re.compile(r"(sk-onward-)[\w-]{16,}")  # longer than the hint that lists show
USERINFO = re.compile(r"([a-zA-Z][\w+.-]*://[^\s:/@\"']*:)[^\s\"']+@")
IN_QUERY = re.compile(r"([^?&=#\s]*(?:pass|secret|token|key)[^?&=#\s]*=)[^&#\s]*", re.I)
NO_URL = "it is no URL (in its password, percent-encode what is not a letter or a digit)"
_known: tuple[str, ...] = ()


class SecretUrl(str):
    """A URL whose `str`, `repr` and place in an f-string have no password. Compared, split and sent it is whole."""

    def __str__(self) -> str:
        try:
            parts = split(self[:])
        except ValueError:
            return STARS
        user, at, host = parts.netloc.rpartition("@")
        name, colon, _ = user.partition(":")
        netloc = f"{name}{colon}{STARS}{at}{host}" if colon else parts.netloc
        return parts._replace(netloc=netloc, query=IN_QUERY.sub(rf"\1{STARS}", parts.query)).geturl()

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def split(url: str) -> SplitResult:
    """urlsplit, whose complaints would repeat what they complain of. Raises ValueError where `url` is no URL: such as
    where its password has characters that end a host."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at only when it is asked for
    except ValueError:
        raise ValueError(NO_URL) from None
    if "://" not in url or ("@" in url and "@" not in parts.netloc):
        raise ValueError(NO_URL)
    return parts


def _checked(url: str) -> SecretUrl:
    split(url)
    return SecretUrl(url)


Url = Annotated[str, AfterValidator(_checked), PlainSerializer(str, when_used="json")]


def remember(value: Any) -> None:
    """Where `value` is a SecretStr or a SecretUrl, no line that this process prints shows its secrets from now on."""
    global _known
    found: list[str] = []
    if isinstance(value, SecretStr):
        found = [value.get_secret_value().rstrip("\r\n")]
    elif isinstance(value, SecretUrl):
        parts = split(value)
        named = parse_qsl(parts.query)
        found = [parts.password or "", *(v for name, v in named if IN_QUERY.match(f"{name}="))]
    forms = {form for secret in found for form in _forms(secret) if len(secret) >= SHORTEST}
    if forms - set(_known):
        _known = tuple(sorted({*_known, *forms}, key=len, reverse=True))


def redacted(text: str) -> str:
    """`text` without the remembered secrets, the passwords of any URL, and API keys."""
    for secret in _known:
        text = text.replace(secret, STARS)
    return API_KEY.sub(rf"\1{STARS}", USERINFO.sub(rf"\1{STARS}@", text))


def _forms(secret: str) -> set[str]:
    """As it is and as a URL spells it; as JSON and Python quote it, twice: a line quotes what a message quoted."""
    forms = {secret, unquote(secret)}
    for _ in range(2):
        forms |= {quoted(form)[1:-1] for form in forms for quoted in (json.dumps, _dumps, repr)}
    return forms


def _dumps(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
