"""A restore goes to the databases of sources and to those that the service names, and leads it to no other server."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.api.backing import ApiOptions
from backstay.api.database_addresses import parse_allowed, parse_database
from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import checked
from backstay.errors import InvalidRequest
from tests.api.client import Client
from tests.api.world import World

SHOP = "postgresql://backup@db.example:5432/shop"


@pytest.fixture
def databases(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, whose policy `other` backs up a database, and `far` one from an agent's host."""
    text = (world.root / "policies.yaml").read_text()
    text += f'''      - {{type: postgresql, name: shop, connection: "{SHOP}"}}
  far: {{agent: host-7, sources: [{{type: postgresql, connection: "postgresql://far@localhost/far"}}]}}
'''
    found = checked(parse_document(text.encode(), "policies.yaml"), {})
    monkeypatch.setattr(world.service.policies, "_loaded", found)
    monkeypatch.setattr("backstay.api.routes.restores.previewed", lambda *_: [])  # nothing is asked of servers
    return world


def plan_status(client: Client, backup: Any, database: str) -> int:
    body = {"backup_id": backup["id"], "target": {"database": database}}
    return client.call("POST", "/api/restore/validate", body).status_code


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (SHOP, 200),
        (SHOP.replace(":5432", "").replace("postgresql", "postgres") + "?connect_timeout=9", 200),
        (SHOP + "?sslmode=disable", 422),
        (SHOP + "?channel_binding=disable&connect_timeout=9", 422),
        (SHOP.replace("5432", "5433"), 422),
        (SHOP.replace("backup@", "postgres@"), 422),
        (SHOP + "2", 422),
        (SHOP.replace("db.example", "127.0.0.1"), 422),
        (SHOP.replace("db.example:5432", "db.example:5432,127.0.0.1:18792"), 422),
        (SHOP + "?sslmode=require&sslkeylogfile=/tmp/keys", 422),
        (SHOP + "?hostaddr=127.0.0.1", 422),
        (SHOP + "?%68ost=127.0.0.1", 422),
        (SHOP.replace("shop", "host%3D127.0.0.1"), 422),
        ("postgresql://far@localhost/far", 422),
        ("postgresql://[::1/x", 422),
        ("mysql://root@db.example/shop", 422),
    ],
)
def test_a_restore_goes_to_the_database_of_a_source_and_to_no_other(
    databases: World, backup: Any, address: str, status: int
) -> None:
    assert plan_status(databases.admin, backup, address) == status


def test_a_database_of_a_source_is_for_those_who_may_restore_it(databases: World, backup: Any) -> None:
    assert plan_status(databases.token(scopes=["/policy/files", "/policy/other"]), backup, SHOP) == 200
    client = databases.token(scopes=["/policy/files"])
    body = {"backup_id": backup["id"], "target": {"database": SHOP}}
    problem = client.refused(422, "POST", "/api/restore/validate", body)
    assert "--restore-database" in problem["solution"]


def test_a_restore_goes_to_the_databases_that_the_service_names(databases: World, backup: Any) -> None:
    backing = databases.app.state.backing
    named = ("postgresql://db.example", "mysql://root@db.example:3307/copy")
    backing.options = ApiOptions(restore_databases=tuple(map(parse_database, named)))
    try:
        for address, status in (
            ("postgresql://ann@DB.example/any", 200),
            ("postgresql://ann@db.example:5433/any", 422),
            ("mysql://root@db.example:3307/copy", 200),
            ("mysql://ann@db.example:3307/copy", 422),
            ("mysql://root@db.example:3307/copy?socket=/tmp/x", 422),
        ):
            assert plan_status(databases.admin, backup, address) == status, address
    finally:
        backing.options = ApiOptions()


def test_an_address_that_the_service_names_has_no_parameters() -> None:
    assert parse_allowed("postgresql://db.example") == parse_database("postgresql://db.example")
    with pytest.raises(InvalidRequest, match="without parameters"):
        parse_allowed("postgresql://db.example?sslmode=verify-full")
