"""Which commands there are, and where each is: `module:function` of this package, loaded when somebody calls it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias

Panels: TypeAlias = dict[str, dict[str, str]]  # headings of the help, and the commands below each

COMMANDS: Final[Panels] = {
    "Back up and restore": {"init": "backup:init", "backup": "backup:backup", "restore": "restore:restore"},
    "Look": {
        "list": "look:list_snapshots",
        "info": "look:info",
        "ls": "look:ls",
        "find": "look:find",
        "diff": "look:diff",
        "cat": "restore:cat",
        "stats": "look:stats",
    },
    "Keep it good": {
        "verify": "care:verify",
        "prune": "space:prune",
        "delete": "space:delete",
        "gc": "space:gc",
        "retain": "retention:retain",
        "check-storage": "storage:check_storage",
        "copy": "copies:copy",
        "export": "medium:export",
        "import": "medium:import_",
    },
    "Operate": {
        "run": "run:run_policy",
        "recover": "recover:recover",
        "serve": "serve:serve",
        "worker": "worker:worker",
    },
    "Help": {"doctor": "doctor:doctor", "benchmark": "assist:benchmark", "completion": "assist:completion"},
}
GROUPS: Final[dict[str, dict[str, tuple[str, dict[str, str]]]]] = {
    "Databases, values and graphs": {
        "pg": (
            "Whole PostgreSQL clusters, and recovery to any point in time.",
            {
                "setup": "pg_setup:pg_setup",
                "backup": "pg_cluster:pg_backup",
                "receive": "pg:receive",
                "archive": "pg_archive:archive",
                "windows": "pg:windows",
                "status": "pg:status",
                "acknowledge-gap": "pg:acknowledge_gap",
                "restore": "pg_recovery:pg_restore",
                "fetch": "pg_recovery:pg_fetch",
                "verify": "pg_recovery:pg_verify",
                "expire": "wal_expiry:pg_expire",
            },
        ),
        "mysql": (
            "The binary log of MySQL and MariaDB, and recovery to a time or position.",
            {
                "receive": "mysql:mysql_receive",
                "windows": "mysql:mysql_windows",
                "restore": "mysql:mysql_restore",
                "expire": "mysql:mysql_expire",
            },
        ),
        "cas": (
            "Bytes and JSON values under their SHA-256.",
            {
                "store": "cas:store",
                "retrieve": "cas:retrieve",
                "exists": "cas:exists",
                "delete": "cas:delete",
                "list": "cas:list_values",
                "info": "cas:info",
                "fold": "cas:fold",
            },
        ),
        "graph": (
            "Graphs of computed values.",
            {
                "snapshot": "graph:graph_snapshot",
                "list": "graph:graph_list",
                "show": "graph:graph_show",
                "diff": "graph:graph_diff",
                "verify": "graph:graph_verify",
                "restore": "graph_restore:graph_restore",
                "attest": "graph_care:graph_attest",
                "validator": "graph_care:graph_validator",
                "delete": "graph_care:graph_delete",
                "gc": "graph_care:graph_gc",
                "export": "graph_care:graph_export",
                "import": "graph_care:graph_import",
                "worker": "graph_worker:graph_worker",
            },
        ),
    },
    "Keep it good": {
        "repair": (
            "Mend a damaged repository.",
            {"index": "care:repair_index", "snapshots": "care:repair_snapshots", "packs": "care:repair_packs"},
        ),
        "tier": (
            "Old data packs in a second, colder store.",
            {
                "set": "tiers:tier_set",
                "show": "tiers:tier_show",
                "move": "tiers:tier_move",
                "recall": "tiers:tier_recall",
                "remove": "tiers:tier_remove",
            },
        ),
        "hold": (
            "Snapshots that nobody may delete.",
            {"set": "retention:hold_set", "clear": "retention:hold_clear", "list": "retention:hold_list"},
        ),
        "key": (
            "Passwords, key files and recovery keys.",
            {
                "list": "keys:list_keys",
                "add": "keys:add_key",
                "remove": "keys:remove_key",
                "rotate": "keys:rotate_key",
                "recovery": "keys:recovery_key",
            },
        ),
    },
    "Operate": {
        "policy": (
            "The policy file: what is backed up, when, and how long it is kept.",
            {"check": "policy:policy_check", "show": "policy:policy_show", "schema": "policy:policy_schema"},
        ),
        "evidence": (
            "Reports of verifications and rehearsals, for whoever must rely on them.",
            {"check": "evidence:check", "list": "evidence:list_kept", "export": "evidence:export"},
        ),
        "audit": (
            "What was done and refused by the service, in a log that nobody can change unseen.",
            {"list": "audit:audit_list", "verify": "audit:audit_verify", "checkpoint": "audit:audit_checkpoint"},
        ),
        "user": (
            "Who may use the service, and in which roles.",
            {
                "add": "users:user_add",
                "list": "users:user_list",
                "grant": "users:user_grant",
                "revoke": "users:user_revoke",
                "password": "users:user_password",
                "disable": "users:user_disable",
                "enable": "users:user_enable",
            },
        ),
        "token": (
            "Secrets by which programs use the service in the name of a user.",
            {"create": "tokens:token_create", "list": "tokens:token_list", "revoke": "tokens:token_revoke"},
        ),
        "agent": (
            "Programs on other hosts that back these up for the service.",
            {
                "invite": "agents:agent_invite",
                "join": "agent_host:agent_join",
                "run": "agent_host:agent_run",
                "list": "agents:agent_list",
                "certificates": "agents:agent_certificates",
                "revoke": "agents:agent_revoke",
            },
        ),
    },
}

# Commands whose parser is not the usual one.
CLASSES: Final = {"care:verify": "care:VerifyCommand"}

_NAMES: Final = frozenset().union(*GROUPS.values(), *COMMANDS.values())
_HELP: Final = frozenset({"-h", "--help"})
_FLAGS: Final = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--version"})  # global, without a value


def load(place: str) -> Any:  # noqa: ANN401 - a function, or a class of parsers
    """What stands there."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"backstay.cli.{module}"), name)


def asks_for_list(argv: Sequence[str]) -> bool:
    """Whether a command line wants to be told which commands there are: it is empty, or has help before any command."""
    is_value = False
    for word in argv:
        if is_value:
            is_value = False
        elif word in _HELP:
            return True
        elif word.startswith("-"):
            is_value = word not in _FLAGS and "=" not in word
        else:
            return False
    return not argv


def called(argv: Sequence[str]) -> frozenset[str] | None:
    """The commands and groups that a command line may mean, None for all.

    Building the parsers of all commands takes longer than many a command does. A name behind an option may be its
    value, and is built for nothing then; words that are no command need all of them.
    """
    found: set[str] = set()
    behind_option = False
    for word in argv:
        if word.startswith("-"):
            behind_option = word not in _FLAGS and "=" not in word
            continue
        if word in _NAMES:
            found.add(word)
        elif not behind_option:
            return None
        if not behind_option:
            return frozenset(found)
        behind_option = False
    return frozenset(found) or None
