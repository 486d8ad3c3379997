"""Cursor pages in OpenAI's form: {"object": "list", "data", "first_id", "last_id", "has_more"}. Knows no resource."""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel


class Entry(BaseModel):
    """What a page lists: anything with an id, which is the cursor."""

    id: str


R = TypeVar("R", bound=Entry)


class Page(BaseModel, Generic[R]):
    """A client asks for the next page with `after` set to `last_id`."""

    object: Literal["list"] = "list"
    data: list[R]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


def page(data: Sequence[R], has_more: bool) -> Page[R]:
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return Page(data=list(data), first_id=first, last_id=last, has_more=has_more)
