"""`user`, `token` and `agent`: the people of a service, whether it runs or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.control.access.access import Access
from backstay.core.clock import SystemClock
from backstay.errors import Unauthorized
from tests.cli.conftest import Account

PASSWORD = "correct horse battery"


def catalog(account: Account) -> Catalog:
    return Catalog.open(f"sqlite:///{account.root}/home/.local/share/backstay/catalog.db")


def audit(account: Account) -> list[tuple[str, str]]:
    with catalog(account) as opened:
        entries = AuditLog(opened, SystemClock()).page().items
    return [(entry.action, entry.object) for entry in reversed(entries)]


def test_users_are_added_with_roles_and_listed(account: Account) -> None:
    made = account.json("user", "add", "ann", "--role", "operator", "--scope", "/policy/files")
    assert made["roles"] == [{"role": "operator", "scope": "/policy/files"}]
    account.run("user", "add", "bob")
    account.run("user", "grant", "bob", "viewer")
    account.run("user", "grant", "bob", "auditor", "--scope", "/repository")
    account.run("user", "revoke", "bob", "viewer")
    listed = account.json("user", "list")["users"]
    assert [(user["name"], len(user["roles"])) for user in listed] == [("ann", 1), ("bob", 1)]
    shown = account.run("user", "list").out
    assert "operator /policy/files" in shown
    assert "auditor /repository" in shown
    assert audit(account) == [
        ("user.create", "user/ann"),
        ("user.create", "user/bob"),
        ("user.grant", "user/bob"),
        ("user.grant", "user/bob"),
        ("user.revoke", "user/bob"),
    ]


def test_a_token_is_printed_once_and_works(account: Account) -> None:
    account.run("user", "add", "ann", "--role", "operator")
    text = account.run("token", "create", "ann", "--name", "cron", "--network", "127.0.0.0/8").out.strip()
    with catalog(account) as opened:
        access = Access(opened, SystemClock())
        assert access.authenticate_bearer(text, "127.0.0.1").name == "ann"
        listed = account.run("token", "list")
        assert "cron" in listed.out
        assert text not in listed.out + account.run("--json", "token", "list", "ann").out
        id_ = text.split("_")[1]
        assert account.json("token", "list")["tokens"][0]["last_used_at"] is not None
        assert account.json("token", "revoke", id_)["revoked_at"] is not None
        with pytest.raises(Unauthorized):
            access.authenticate_bearer(text, "127.0.0.1")
    assert "revoked" in account.run("token", "list").out


def test_limits_of_a_token_are_kept(account: Account) -> None:
    account.run("user", "add", "ann", "--role", "operator")
    words = [
        "--permission",
        "backup:read",
        "--permission",
        "restore:plan",
        "--scope",
        "/policy/a",
        "--expires-in",
        "90d",
    ]
    made: dict[str, Any] = account.json("token", "create", "ann", *words)
    assert made["permissions"] == ["backup:read", "restore:plan"]
    assert (made["scopes"], made["networks"]) == (["/policy/a"], None)
    assert made["expires_at"] > made["created_at"]
    assert made["token"].startswith("bkp_")


def test_a_password_comes_from_a_file_or_a_variable(account: Account) -> None:
    account.run("user", "add", "ann", "--role", "viewer")
    file = account.root / "password"
    file.write_text(PASSWORD + "\n")
    account.run("user", "password", "ann", "--new-password-file", file)
    with catalog(account) as opened:
        access = Access(opened, SystemClock())
        assert access.login("ann", PASSWORD, "127.0.0.1").name == "ann"
        account.run("user", "password", "ann", env={"BACKSTAY_NEW_PASSWORD": PASSWORD + "2"})
        assert access.login("ann", PASSWORD + "2", "127.0.0.1").name == "ann"
        refused = account.run("user", "password", "ann", env={"BACKSTAY_NEW_PASSWORD": "short"}, status=2)
        assert "12 to 256" in refused.err
        account.run("user", "password", "ann", status=12)  # nobody to ask
        account.run("user", "disable", "ann")
        with pytest.raises(Unauthorized):
            access.login("ann", PASSWORD + "2", "127.0.0.1")
        account.run("user", "enable", "ann")
        assert access.login("ann", PASSWORD + "2", "127.0.0.1").name == "ann"


MISTAKES: list[tuple[list[str], int, str]] = [
    (["user", "add", "Ann"], 2, "cannot name a user"),
    (["user", "add", "ann", "--role", "emperor"], 2, "there is no role"),
    (["user", "add", "ann", "--role", "viewer", "--scope", "/policies/a"], 2, "is no scope"),
    (["user", "grant", "nobody", "viewer"], 1, "there is no user"),
    (["user", "password", "nobody"], 1, "there is no user"),
    (["token", "create", "nobody"], 1, "there is no user"),
    (["token", "revoke", "00000000"], 1, "there is no token"),
    (["token", "create", "nobody", "--expires-in", "soon"], 2, "soon"),
    (["agent", "revoke", "nobody"], 1, "there is no agent"),
    (["agent", "certificates", "nobody"], 1, "there is no agent"),
    (["agent", "invite", "a", "--valid-for", "30d"], 2, "within seven days"),
    (["user", "list", "--database", "mysql://x"], 2, "neither sqlite: nor postgresql:"),
]


def test_mistakes_are_told_and_change_nothing(account: Account) -> None:
    for words, status, told in MISTAKES:
        assert told in account.run(*words, status=status).err
    assert account.json("user", "list") == {"users": []}
    assert audit(account) == []


def test_the_last_administrator_is_not_shut_out(account: Account) -> None:
    account.run("user", "add", "root", "--role", "admin")
    assert "last administrator" in account.run("user", "disable", "root", status=2).err
    assert "last administrator" in account.run("user", "revoke", "root", "admin", status=2).err


def test_an_agent_is_invited(account: Account) -> None:
    directory = account.root / "elsewhere"
    made = account.json("agent", "invite", "host-7", "--data-dir", directory)
    assert made["token"].startswith("bkj_")
    assert (directory / "authority.pem").stat().st_mode & 0o777 == 0o600
    again = account.run("agent", "invite", "host-7", "--data-dir", directory)
    assert again.out.startswith("bkj_")
    assert made["authority_fingerprint"] in again.out
    assert account.json("agent", "certificates", "host-7", "--data-dir", directory) == {"certificates": []}
    assert account.json("agent", "revoke", "host-7", "--data-dir", directory) == {"agent": "host-7", "revoked": 0}
    assert account.json("user", "list", "--data-dir", directory)["users"][0]["kind"] == "agent"


def test_no_secret_lies_in_the_catalog(account: Account) -> None:
    account.run("user", "add", "ann", "--role", "admin")
    account.run("user", "password", "ann", env={"BACKSTAY_NEW_PASSWORD": PASSWORD})
    secrets = [PASSWORD, account.json("token", "create", "ann")["token"], account.json("agent", "invite", "h")["token"]]
    kept = b"".join(path.read_bytes() for path in Path(account.root, "home/.local/share/backstay").iterdir())
    assert b"$argon2id$" in kept
    for secret in secrets:
        assert secret.encode() not in kept
        assert secret.rpartition("_")[2].encode() not in kept


@pytest.mark.parametrize(
    "argv",
    [
        ("user", "list"),
        ("user", "disable", "ann"),
        ("token", "list"),
        ("token", "create", "ann"),
        ("token", "revoke", "t"),
        ("agent", "list"),
        ("agent", "revoke", "web"),
    ],
)
def test_without_a_catalog_only_what_begins_one_makes_one(account: Account, argv: tuple[str, ...]) -> None:
    place = account.root / "mistyped"
    told = account.json(*argv, "--data-dir", place, status=1)
    assert (told["code"], told["title"]) == ("NotFound", "there is no catalog")
    assert not place.exists()


def test_whoever_begins_a_catalog_is_told_so(account: Account) -> None:
    place = account.root / "new"
    assert f"{place}/catalog.db was made" in account.run("user", "add", "ann", "--data-dir", place).err
    assert "was made" not in account.run("user", "add", "bob", "--data-dir", place).err
