"""The description of the interface, tried: whatever is sent by whomever, answers are as they are described."""

from __future__ import annotations

import os
import traceback
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from backstay.api.app import ENDPOINTS
from tests.api.client import Client
from tests.api.world import PEOPLE, World

EXAMPLES = int(os.environ.get("BACKSTAY_API_EXAMPLES", "1"))
ENDLESS = "follow_all"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def sent(client: Client, case: Any) -> httpx.Response:
    given = case.as_transport_kwargs(base_url="http://service")
    headers = {**dict(given.get("headers") or {}), **client.headers()}
    body = {"content": given["data"]} if given.get("data") is not None else {}
    if given.get("json") is not None:
        body = {"json": given["json"]}
    return client.loop.request(
        given["method"], given["url"], headers=headers, params=given.get("params") or None, **body
    )


def tried(world: World, operation: Any, mode: GenerationMode) -> None:
    """Send what the description allows, or what it forbids, as everybody."""
    checks = [*CHECKS, *([negative_data_rejection] if mode is GenerationMode.NEGATIVE else [])]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def once(case: Any) -> None:
        for person in PEOPLE:
            case.validate_response(sent(world[person], case), checks=checks)

    once()


@pytest.mark.property
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # of schemathesis itself
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_answers_are_as_they_are_described_whatever_is_sent(world: World, backup: Any, mode: GenerationMode) -> None:
    document = world.nobody.ok("GET", "/api/openapi.json")
    for operations in document["paths"].values():
        for operation in operations.values():
            del operation["security"]  # who asks is our concern, and is not varied
    schema = schemathesis.openapi.from_dict(document)
    failed: list[str] = []
    for endpoint in ENDPOINTS:
        if endpoint.name == ENDLESS:
            continue
        try:
            tried(world, schema[endpoint.path][endpoint.method.lower()], mode)
        except Unsatisfiable:  # nothing can be wrong with a request that takes nothing
            continue
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all that fail are told at once
            told = "".join(traceback.format_exception_only(error))
            failed.append(f"{endpoint.name}: {told}" + "; ".join(map(str, getattr(error, "exceptions", ()))))
    assert not failed, "\n".join(failed)
