"""The operator's reason for an order, as annotations of the ModelEndpoint.

The reason changes more often than the order. In ``spec`` each change would be a new generation, which the agent stores
and acknowledges; an annotation bumps none. In ``status`` it could not stand: the agent alone writes that, as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgefolio.specification.conditions import ReasonWord, truncated
from edgefolio.specification.endpoint import EndpointSpecification

#: Annotations that the operator writes on a ModelEndpoint.
REASON_ANNOTATION = "edgefolio.dev/decision-reason"
MESSAGE_ANNOTATION = "edgefolio.dev/decision-message"

_REASON: TypeAdapter[str] = TypeAdapter(ReasonWord)


@dataclass(frozen=True, kw_only=True)
class OrderReason:
    """Why an endpoint is to serve its variant, in one word and in a sentence with the figures."""

    reason: str | None = None
    message: str = ""

    def annotations(self) -> dict[str, str]:
        """The annotations that say so; none if there is nothing to say."""
        if self.reason is None:
            return {}
        return {REASON_ANNOTATION: self.reason, MESSAGE_ANNOTATION: self.message}

    @classmethod
    def of(cls, metadata: Any, spec: EndpointSpecification | None) -> OrderReason:
        """The reason of a stored ModelEndpoint; earlier operators wrote it into ``spec``.

        Annotations can be edited by people: one that is no reason counts as absent.
        """
        annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
        told = annotations.get(REASON_ANNOTATION) if isinstance(annotations, Mapping) else None
        if isinstance(annotations, Mapping) and _is_reason(told):
            message = annotations.get(MESSAGE_ANNOTATION)
            return cls(reason=str(told), message=truncated(message) if isinstance(message, str) else "")
        return cls() if spec is None else cls(reason=spec.reason, message=spec.message)


def without_reason(spec: EndpointSpecification) -> EndpointSpecification:
    """The order alone, without the reason that earlier operators wrote into it."""
    return spec if spec.reason is None and not spec.message else spec.model_copy(update={"reason": None, "message": ""})


def _is_reason(value: Any) -> bool:
    try:
        _REASON.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
