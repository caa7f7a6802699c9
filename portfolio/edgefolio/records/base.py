"""Base of all records of a repository, and the names in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: One path segment; never a way out of its folder.
Segment = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", max_length=63)]


class Record(BaseModel):
    """Frozen, camelCase in JSON; unknown fields are refused, NaN and infinity too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
