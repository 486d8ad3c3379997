"""What a request's body may say, before vLLM sees it: JSON as a person could have meant it, OpenAI's fields and none of
vLLM's own. Pure: knows JSON and limits, no engine. The API has its own list; this one holds whoever asks."""

import json
import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from worker.serving import schemas
from worker.serving.errors import invalid

BOTH: Final = frozenset({
    "model", "frequency_penalty", "presence_penalty", "logit_bias", "n", "seed", "stop", "stream", "stream_options",
    "temperature", "top_p", "max_tokens", "user", "metadata",
})  # fmt: skip
CHAT: Final = BOTH | {
    "messages", "max_completion_tokens", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
    "parallel_tool_calls",
}  # fmt: skip
COMPLETIONS: Final = BOTH | {"prompt", "logprobs", "echo"}
UNUSED: Final = ("user", "metadata", "model")  # nothing here depends on them
CHOICES: Final = 16
PROMPTS: Final = 16
STOPS: Final = 16
STOP_TEXT: Final = 256  # characters of one
BIASES: Final = 1024
NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
SEEDS: Final = 2**62  # a choice's seed is the request's and its number: neither leaves 64 bits


def parsed(body: bytes) -> dict[str, Any]:
    """The object that a body is. Raises Refused for what is no JSON, holds a number that is none, or text that is no
    text: NUL, half a surrogate pair."""
    try:
        whole = json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8.") from None
    except RecursionError:
        raise invalid("The body is nested too deeply.") from None
    except ValueError as error:
        raise invalid(f"The body is not JSON: {error}.") from None
    if not isinstance(whole, dict):
        raise invalid("The body is not a JSON object.")
    _check_text(whole)
    return whole


def fields(said: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    """What goes to vLLM of what was said: allowed, within limits, and seeded, so that two requests that say no seed
    differ. Raises Refused."""
    if strange := next((name for name in said if name not in allowed), None):
        raise invalid(f"Unknown parameter: {strange[:100]!r}.", strange[:100], "unknown_parameter")
    kept = {name: value for name, value in said.items() if value is not None and name not in UNUSED}
    _check_counts(kept)
    _check_format(kept.get("response_format"))
    options = kept.pop("stream_options", None)
    if isinstance(options, dict) and kept.get("stream"):
        kept["stream_options"] = {"include_usage": options.get("include_usage") is True}
    if kept.get("temperature") == 0 and kept.get("n", 1) != 1:  # several alike, which vLLM takes for a mistake
        kept |= {"temperature": 1.0, "top_k": 1}
    seed = kept.get("seed")
    kept["seed"] = seed % SEEDS if isinstance(seed, int) else secrets.randbelow(SEEDS) if seed is None else seed
    return kept


def _check_counts(kept: Mapping[str, Any]) -> None:
    stops = kept.get("stop", [])
    stops = stops if isinstance(stops, list) else [stops]
    if len(stops) > STOPS:
        raise invalid(f"At most {STOPS} stop sequences are taken.", "stop")
    if any(isinstance(stop, str) and not 0 < len(stop) <= STOP_TEXT for stop in stops):
        raise invalid(f"A stop sequence has 1 to {STOP_TEXT} characters.", "stop")
    choices = kept.get("n", 1)
    if isinstance(choices, int) and not 1 <= choices <= CHOICES:
        raise invalid(f"n is 1 to {CHOICES}.", "n")
    temperature = kept.get("temperature", 1)
    if isinstance(temperature, int | float) and not 0 <= temperature <= 2:
        raise invalid("temperature is 0 to 2.", "temperature")
    if isinstance(bias := kept.get("logit_bias"), dict) and len(bias) > BIASES:
        raise invalid(f"At most {BIASES} tokens are biased.", "logit_bias")
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(most := kept.get(name), int) and most < 1:
            raise invalid(f"{name} is at least 1.", name)
    prompt = kept.get("prompt")
    if isinstance(prompt, list) and len(prompt) > PROMPTS and not isinstance(prompt[0], int):
        raise invalid(f"At most {PROMPTS} prompts are taken at once.", "prompt")


def _check_format(given: Any) -> None:
    if given is None:
        return
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise invalid("The type of response_format is text, json_object or json_schema.", "response_format")
    if kind == "json_schema":
        asked = given.get("json_schema")
        why = schemas.fault(asked.get("schema") if isinstance(asked, dict) else None)
        if why is not None:
            raise invalid(f"The schema is not taken: {why}.", "response_format", "invalid_schema")


def _check_text(whole: Any) -> None:
    todo = [whole]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            if NO_TEXT.search(part):
                raise invalid("Text must not hold NUL or half of a surrogate pair.", code="invalid_text")
        elif isinstance(part, dict):
            todo += (*part, *part.values())
        elif isinstance(part, list):
            todo += part


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number
