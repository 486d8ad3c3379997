"""Which JSON schemas an answer may be held to: those whose grammar stays small. Pure: knows JSON, no grammar.

A schema becomes a grammar before its request runs, on a thread that all such requests share and that nothing can stop.
So what would make it large is counted first: nodes, nesting, text, alternatives, and what bounds on lengths unroll to.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

NODES: Final = 1500
NESTING: Final = 16
TEXT: Final = 64_000  # characters of names, values and patterns
ALTERNATIVES: Final = 1000  # of one enum or anyOf
UNROLLED: Final = 2000  # repetitions, those of what is inside of repetitions multiplied
PATTERN: Final = 512  # characters of one
REPEATS: Final = 200  # that a pattern unrolls to: thousands take the compiler many seconds
COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
REPEATED: Final = re.compile(r"(\)?)\{(\d+)(?:,(\d*))?\}")  # of a group, or of less


def fault(schema: Any) -> str | None:
    """What is too much about a schema, in words; None where nothing is. References are not followed: each place that is
    referred to is counted once."""
    if not isinstance(schema, dict):
        return "it is not an object"
    text = 0
    for number, (node, depth, times) in enumerate(_walk(schema)):
        if number >= NODES:
            return f"it has more than {NODES} parts"
        if depth > NESTING:
            return f"it is nested deeper than {NESTING} levels"
        if isinstance(node, str):
            text += len(node)
        elif isinstance(node, dict):
            text += sum(map(len, node))
            if (why := _node(node, times)) is not None:
                return why
        elif isinstance(node, list) and len(node) > ALTERNATIVES:
            return f"it lists more than {ALTERNATIVES} alternatives in one place"
        if text > TEXT:
            return f"its text is longer than {TEXT} characters"
    return None


def _walk(schema: Any) -> Iterator[tuple[Any, int, int]]:
    """Every part of it, how deep it lies and how often it is repeated there."""
    todo = [(schema, 0, 1)]
    while todo:
        node, depth, times = todo.pop()
        yield node, depth, times
        if isinstance(node, dict):
            within = times * max(1, *(_count(node, name) for name in COUNTS[:2]))
            todo += [(part, depth + 1, within) for part in node.values()]
        elif isinstance(node, list):
            todo += [(part, depth + 1, times) for part in node]


def _node(node: dict[str, Any], times: int) -> str | None:
    for name in COUNTS:
        if times * _count(node, name) > UNROLLED:
            return f"{name} is {node[name]}, and what is repeated in all is at most {UNROLLED}"
    pattern = node.get("pattern")
    if not isinstance(pattern, str):
        return None
    if len(pattern) > PATTERN:
        return f"a pattern is longer than {PATTERN} characters"
    repeated = 0
    for group, low, high in REPEATED.findall(pattern):
        most = max(1, *(min(int(digits[:10] or 0), 10**9) for digits in (low, high)))
        repeated = max(repeated, 1) * most if group else repeated + most
    repeated *= times
    return f"a pattern repeats more than {REPEATS} times" if repeated > REPEATS else None


def _count(node: dict[str, Any], name: str) -> int:
    value = node.get(name)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else 0
