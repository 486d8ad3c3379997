"""What a refused body costs: the schema that names its fields is made once a process, not once a refusal."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from api.errors import ApiError
from api.validation import validated


def test_a_schema_is_made_once_however_many_bodies_are_refused():
    made = []

    class Asked(BaseModel):
        model_config = ConfigDict(extra="forbid")
        rank: int = 1

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            made.append(cls)
            return super().model_json_schema(*args, **kwargs)

    for raw in (b'{"rnak": 1}', b'{"rank": "x"}', b'{"rnak": 2}', b"{"):
        with pytest.raises(ApiError):
            validated(Asked, raw)
    assert made == [Asked]
