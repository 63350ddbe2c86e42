"""Policy files as the tests write them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import LoadedPolicies, checked
from backstay.errors import PolicyInvalid

FILE = "p.yaml"


def loaded(text: str, environ: Mapping[str, str] | None = None) -> LoadedPolicies:
    """The policies of a text."""
    return checked(parse_document(text.encode(), FILE), environ or {})


def mistakes(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """All that is wrong with a text, as people are told."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyInvalid) as told:
        checked(parse_document(data, FILE), environ or {})
    return [str(mistake).removeprefix(f"{FILE}:") for mistake in told.value.mistakes]
