"""A method's settings as a request may send them, made from the contract's own, so that no literal is written twice.

Types only: ranges are the spec's. Knows no method by name.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from db.contract import methods

_literal: Any = Literal  # made of values, which no type checker follows
_union: Any = Union


class Strict(BaseModel):
    """Unknown keys and wrong types are refused: a number as a string is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", strict=True)


def words(names: Iterable[str]) -> Any:
    """One of `names`, or "auto"."""
    return _literal[(*names, "auto")]


def _loose(field: str) -> Any:
    """The type of a setting in whichever method has it, or "auto", or null."""
    kinds = dict.fromkeys(
        arm.model_fields[field].annotation for arm in methods.ARMS.values() if field in arm.model_fields
    )
    named = dict.fromkeys(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))
    return words(named) | None if named else _union[(*kinds, words(()), None)]


def _object(name: str) -> Any:
    """A method with its settings in one object."""
    own: dict[str, Any] = {field: (_loose(field), None) for field in methods.ARMS[name].model_fields if field != "name"}
    own["name"] = (_literal[name], ...)
    return create_model(f"Method{name.capitalize()}", __base__=Strict, **own)


def _form(value: object) -> str:
    return "object" if isinstance(value, dict | BaseModel) else "word"


SETTINGS: Final[dict[str, Any]] = {field: (_loose(field), None) for field in methods.FIELDS}
_objects: Any = _union[tuple(_object(name) for name in methods.ARMS)]
_name: Any = words(methods.ARMS)
METHOD: Final[Any] = Annotated[
    Annotated[_name, Tag("word")] | Annotated[_objects, Field(discriminator="name"), Tag("object")],
    Discriminator(_form),
]
