"""Every mistake of a policy file is told at its line, with its key, and all of them at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from backstay.control.policies.configuration_paths import configuration_paths
from backstay.control.policies.notifications import Kind
from backstay.control.policies.origins import FilesystemOrigin
from backstay.control.policies.pending import pending
from backstay.control.policies.showing import as_text, show
from backstay.errors import Mistake, NotFound, PolicyInvalid
from tests.control.policies.files import loaded, mistakes

GOOD = "policies: {p: {sources: [{type: sqlite, path: /x}]}}"
STORAGE = "backup_manager: {storage: %s}"
POLICY = "policies: {p: {sources: [{type: sqlite, path: /x}], %s}}"
SOURCE = "policies: {p: {sources: [%s]}}"
AT = "backup_manager.notifications"
TARGET = "backup_manager: {notifications: {targets: {t: %s}}}"
MATCHER = "backup_manager: {notifications: {targets: {t: {type: apprise, url: 'json://x'}}, matchers: {m: %s}}}"
ALL_KINDS = ", ".join(get_args(Kind)[:-1]) + f" or {get_args(Kind)[-1]}"
ORDINARY = "it takes 0 to 59, *, lists, ranges and steps such as */15"

ASKING = "verification: {each_run: true, restore_test: true, %s}"
FILES = "policies: {p: {sources: [{type: filesystem, paths: [/x]}, {type: filesystem, name: a, paths: [/y]}], %s}}"

TABLE = {
    POLICY
    % ASKING
    % "queries: [{sql: select 1}, {sql: select 1, source: pp}]": "policies.p.verification.queries[1] asks "
    "the source 'pp', which there is not (there are p)",
    FILES % ASKING % "commands: [{command: ['true'], source: p-b}]": "policies.p.verification.commands[0] asks "
    "the source 'p-b', which there is not (there are a, p or p-a)",
    FILES
    % ASKING
    % "queries: [{sql: select 1}]": "policies.p.verification.queries[0] asks no source that is a database "
    "which a rehearsal opens (it opens SQLite and PostgreSQL; look into files with `commands`)",
    FILES
    % ASKING
    % "queries: [{sql: select 1, source: a}]": "policies.p.verification.queries[0] asks no source that is a "
    "database which a rehearsal opens (it opens SQLite and PostgreSQL; look into files with `commands`)",
    f"{GOOD}\nbackup_manager: {{{ASKING % 'commands: [{command: [x], source: y}]'}}}": "backup_manager.verification."
    "commands[0] asks the source 'y', which there is not (there are p)",
    POLICY % "agent: Web 1": "policies.p.agent: 'Web 1' is no name of an agent "
    "(names have up to 64 of a-z, 0-9, `.`, `_`, `@`, `+` and `-`)",
    POLICY % "agent: a, schedule: {configuration: on_change}": "policies.p: nobody sees from here when files of an "
    "agent change (give `configuration` a cron expression)",
    "policies: {p: {agent: a, sources: [{type: mysql, connection: 'mysql://u:x@h/d'}]}}": "policies.p: "
    "sources[0].connection holds a password, and no secrets are sent to agents "
    "(leave it out, and keep it on the agent's host: in ~/.pgpass, ~/.my.cnf or a variable)",
    "polices: {}": "polices: there is no such key (did you mean policies?)",
    "zzz: {}": "zzz: there is no such key (there are backup_manager or policies)",
    "policies: []": "policies: must be a table of keys, not a list",
    "policies:": "policies: must be a table of keys, not nothing",
    "policies: {p: }": "policies.p: must be a table of keys, not nothing",
    "policies: {p: {}}": "policies.p.sources: is missing",
    "policies: {'a/b': {sources: [{type: sqlite, path: /x}]}}": "policies.a/b: 'a/b' is no name "
    "(names have up to 80 letters, digits, `.`, `_` and `-`, a letter first)",
    "policies: {Latest: {sources: [{type: sqlite, path: /x}]}}": "policies.Latest: 'Latest' cannot name a backup: "
    "`latest` is the newest snapshot of all (choose another name: this one could never be asked for)",
    SOURCE % "": "policies.p.sources: must not be empty",
    SOURCE % "/x": "policies.p.sources[0]: must be a table of keys, not the text '/x'",
    SOURCE % "{path: /x}": "policies.p.sources[0].type: is missing "
    "(types are filesystem, postgresql, mysql, sqlite or command)",
    SOURCE % "{type: postgres}": "policies.p.sources[0].type: there is no type 'postgres' (did you mean postgresql?)",
    SOURCE % "{type: filesystem, path: /x}": [
        "policies.p.sources[0].paths: is missing",
        "policies.p.sources[0].path: there is no such key (did you mean paths?)",
    ],
    SOURCE % "{type: filesystem, paths: /x}": "policies.p.sources[0].paths: must be a list, not the text '/x'",
    SOURCE % "{type: filesystem, paths: [x]}": "policies.p.sources[0].paths[0]: the path 'x' does not begin with a "
    "slash (nothing says where a relative path begins)",
    SOURCE % "{type: filesystem, paths: [/x], exclude: [7]}": "policies.p.sources[0].exclude[0]: must be text, "
    "not the number 7 (put quotes around it)",
    SOURCE % "{type: filesystem, paths: [/x], one_file_system: yes}": "policies.p.sources[0].one_file_system: "
    "must be true or false, not the text 'yes'",
    SOURCE % "{type: command, command: pg_dumpall}": "policies.p.sources[0].command: must be a list, "
    "not the text 'pg_dumpall' (a program and its arguments are a list of words, such as "
    '["pg_dumpall", "--globals-only"])',
    SOURCE % '{type: command, command: ["a\\0"]}': "policies.p.sources[0].command[0]: holds a null character",
    SOURCE % "{type: postgresql, connection: 'host=x password=hunter2'}": "policies.p.sources[0].connection: "
    "this is no address of PostgreSQL (write postgresql://USER@HOST:PORT/DB)",
    SOURCE % "{type: sqlite, path: /x}, {type: sqlite, path: /y}": "policies.p.sources: 2 sources have no name "
    "(give each but one a `name` of its own)",
    SOURCE % "{type: sqlite, path: /x, name: a}, {type: sqlite, path: /y, name: a}": "policies.p.sources: "
    "2 sources are named 'a' (give each but one a `name` of its own)",
    POLICY % "schedule: {full: '61 0 * * *'}": "policies.p.schedule.full: '61 0 * * *' is no cron expression: "
    f"the minute (1st field) cannot be '61' ({ORDINARY})",
    POLICY % "schedule: {timezone: Mars/North}": "policies.p.schedule.timezone: there is no time zone 'Mars/North' "
    "(write one of the IANA names, such as Europe/Berlin)",
    POLICY % "schedule: {cron: '0 0 * * *'}": "policies.p.schedule.cron: there is no such key "
    "(it is `full`, `incremental` or `differential`)",
    POLICY % "retention: {keep_daily: 0}": "policies.p.retention: the rules keep nothing "
    "(keep something, for example keep_daily: 7)",
    POLICY % "retention: {keep_daily: -1}": "policies.p.retention.keep_daily: must be at least 0, not -1",
    POLICY % "retention: {keep_daily: 1.5}": "policies.p.retention.keep_daily: must be a whole number, "
    "not the number 1.5",
    POLICY % "retention: {keep_daily: true}": "policies.p.retention.keep_daily: must be a whole number, not true",
    POLICY % "retention: {keep_within: 30}": "policies.p.retention.keep_within: must be text, not the number 30 "
    "(put quotes around it)",
    POLICY % "retention: {ttl: 30d}": "policies.p.retention.ttl: there is no such key "
    "(it is `keep_within`, such as 30d)",
    POLICY % "verification: {restore_test: true}": "policies.p.verification: nothing says when to verify "
    "(give `schedule` or `each_run: true`)",
    POLICY % "verification: {each_run: true, checks: [integrty]}": "policies.p.verification.checks[0]: 'integrty' is "
    "not integrity, completeness, size or signature (did you mean integrity?)",
    POLICY % "verification: {each_run: true, read_data: 101}": "policies.p.verification.read_data: "
    "must be at most 100, not 101",
    POLICY % "hooks: {before: [{command: [x], on_eror: fail}]}": "policies.p.hooks.before[0].on_eror: "
    "there is no such key (did you mean on_error?)",
    POLICY % "hooks: {before: [{command: [x], timeout: 5m}]}": "policies.p.hooks.before[0].timeout: '5m' is no fixed "
    "length of time: years and months differ in length (write for example 90s, 15min, 2h or 14d; m would be months, "
    "min is minutes)",
    STORAGE % "{type: s33, bucket: x}": "backup_manager.storage.type: there is no type 's33' (did you mean s3?)",
    STORAGE % "{path: /x}": "backup_manager.storage.type: is missing "
    "(types are local, s3, azure, gcs, sftp, webdav, ftp or ipfs; or give a `url`)",
    STORAGE % "{type: s3}": "backup_manager.storage.bucket: is missing",
    STORAGE % "{type: s3, bucket: x, endpoint: 'minio:9000'}": "backup_manager.storage: the option endpoint is no "
    "address (write endpoint=https://HOST:PORT)",
    STORAGE % "{type: sftp, host: h, port: 70000}": "backup_manager.storage.port: must be at most 65535, not 70000",
    STORAGE % "{type: local, path: /x, max_size: 1XB}": "backup_manager.storage.max_size: cannot read the size '1XB': "
    "it is no whole number with a unit (write for example 500MiB or 2g)",
    STORAGE % "{type: local, path: /x, quorum: 2}": "backup_manager.storage: a quorum needs copies "
    "(name them under `copies`)",
    STORAGE % "{type: local, path: /x, quorum: 3, copies: [{url: /y}]}": "backup_manager.storage: the quorum is 3, "
    "and there are 2 places (the repository itself counts)",
    "backup_manager: {compression: {algorithm: lz4}}": "backup_manager.compression.algorithm: 'lz4' is not zstd, "
    "gzip or none",
    "backup_manager: {compression: {level: 99}}": "backup_manager.compression: zstd has no level 99 "
    "(levels go from 1 to 19)",
    "backup_manager: {encryption: {enabled: false}}": "backup_manager.encryption.enabled: repositories are always "
    "encrypted (leave `enabled` out)",
    "backup_manager: {encryption: {password: hunter2}}": "backup_manager.encryption.password: a password does not "
    "belong into this file (write ${file:/whole/path} or ${VARIABLE})",
    "backup_manager: {encryption: {provider: key_file}}": "backup_manager.encryption: the provider key_file needs "
    "`key_file`",
    "backup_manager: {encryption: {key_id: x}}": "backup_manager.encryption: `key_id` is for the provider aws_kms "
    "(the provider is password)",
    TARGET % "{type: mail}": f"{AT}.targets.t.type: there is no type 'mail' (did you mean email?)",
    TARGET % "{url: 'json://x'}": f"{AT}.targets.t.type: is missing (types are email, slack, webhook or apprise)",
    TARGET % "{type: email, to: [a@b], sender: a@b, server: h, password: hunter2}": f"{AT}.targets.t.password: "
    "a password does not belong into this file (write ${file:/whole/path} or ${VARIABLE})",
    TARGET % "{type: email, to: [nobody], sender: a@b, server: h}": f"{AT}.targets.t.to[0]: 'nobody' is no address "
    "of mail (write NAME@HOST)",
    TARGET % "{type: email, to: [a@b], from: a@b, server: h}": [
        f"{AT}.targets.t.sender: is missing",
        f"{AT}.targets.t.from: there is no such key (it is `sender`)",
    ],
    TARGET % "{type: slack, webhook: 'https://example.com/hunter2'}": f"{AT}.targets.t.webhook: this is no webhook of "
    "Slack (write https://hooks.slack.com/services/A/B/C)",
    TARGET % "{type: webhook, url: 'ftp://hunter2'}": f"{AT}.targets.t.url: this is no address of the web "
    "(write https://HOST/PATH)",
    TARGET % "{type: apprise, url: hunter2}": f"{AT}.targets.t.url: this is no address for messages "
    "(write for example discord://ID/TOKEN or ntfys://HOST/TOPIC)",
    MATCHER % "{}": f"{AT}.matchers.m.targets: is missing",
    MATCHER % "{targets: [u]}": f"{AT}.matchers.m.targets[0]: there is no target 'u' (there are t)",
    MATCHER % "{targets: [t], policies: [q]}": f"{AT}.matchers.m.policies[0]: there is no policy 'q'",
    MATCHER % "{targets: [t], severities: [eror]}": f"{AT}.matchers.m.severities[0]: 'eror' is not info, warning or "
    "error (did you mean error?)",
    MATCHER % "{targets: [t], kinds: [capasity]}": f"{AT}.matchers.m.kinds[0]: 'capasity' is not {ALL_KINDS} "
    "(did you mean capacity?)",
    POLICY % "notifications: {targets: [t]}": "policies.p.notifications.targets[0]: there is no target 't' "
    "(name it under `backup_manager.notifications.targets`)",
    POLICY % "notifications: {ping: hunter2}": "policies.p.notifications.ping: this is no address of the web "
    "(write https://HOST/PATH)",
    POLICY % "alerts: {rpo: 1m}": "policies.p.alerts.rpo: '1m' is no fixed length of time: years and months differ in "
    "length (write for example 90s, 15min, 2h or 14d; m would be months, min is minutes)",
    POLICY % "alerts: {capacity: 3}": "policies.p.alerts.capacity: there is no such key "
    "(there are rehearsal, rpo or verification)",
    "backup_manager: {alerts: {capacity: 101}}": "backup_manager.alerts.capacity: must be at most 100, not 101",
    "backup_manager: {alerts: {rpo_factor: 0.5}}": "backup_manager.alerts.rpo_factor: must be at least 1, not 0.5",
    '{"Backup": {"RetentionPolicy": {"Daly": 3, "Weekly": 1}}}': "Backup.RetentionPolicy.Daly: there is no such key "
    "(did you mean Daily?)",
    '{"Backup": {"DefaultSchedule": "0 0 * *"}}': "Backup.DefaultSchedule: '0 0 * *' is no cron expression: it has "
    "4 fields, not 5 (the fields are minute, hour, day of the month, month, day of the week)",
    '{"Backup": {"Storage": {"Type": "Local", "Path": "data"}}}': "Backup.Storage.Path: the path 'data' does not "
    "begin with a slash (nothing says where a relative path begins)",
    '{"Backup": {"Storage": {"Type": "Locl", "Path": "/x"}}}': "Backup.Storage.Type: there is no type 'locl' "
    "(did you mean local?)",
    '{"Backup": 3}': "Backup: must be a table of keys",
}


@pytest.mark.parametrize(("text", "told"), TABLE.items())
def test_the_mistake_is_told(text: str, told: str | list[str]) -> None:
    assert mistakes(text) == [f"1: {one}" for one in ([told] if isinstance(told, str) else told)]


def test_all_mistakes_are_told_at_once_by_their_lines() -> None:
    text = """\
policies:
  files:
    sources:
      - type: filesystem
        paths: ["/x"]
        exlude: ["*.tmp"]
    schedule:
      full: "61 0 * * *"
      incremental: ${NONE}
backup_manager:
  storage: {type: local, path: here}
"""
    assert [told.partition(": ")[0] for told in mistakes(text)] == ["6", "8", "9", "11"]


def test_a_mistake_behind_an_alias_is_told_where_it_stands() -> None:
    text = "policies:\n  a: &a\n    sources: [{type: sqlite, path: /x}]\n    tag: x\n  b: *a\n"
    assert [told.partition(" ")[0] for told in mistakes(text)] == ["4:", "4:"]


def test_sources_of_two_policies_whose_snapshots_would_have_one_name_are_told_with_both_places() -> None:
    text = (
        "policies:\n"
        "  shop:\n    sources:\n      - {type: sqlite, path: /x}\n      - {type: sqlite, path: /y, name: db}\n"
        "  shop-db:\n    sources: [{type: sqlite, path: /z}]\n"
    )
    told = (
        "7: policies.shop-db.sources[0]: its snapshots would be named 'shop-db', as those of policies.shop.sources[1] "
        "in line 5 (the retention of one would delete those of the other: give one another `name`)"
    )
    assert mistakes(text) == [told]


def test_sources_of_two_policies_may_be_named_alike() -> None:
    text = "policies: {a: {sources: &s [{type: sqlite, path: /x, name: db}]}, b: {sources: *s}}"
    assert loaded(text).content.names == ["a", "b"]


def test_a_mistake_is_a_document_for_programs() -> None:
    with pytest.raises(PolicyInvalid) as told:
        loaded("a: 1\nb: 2\n")
    first, second = told.value.mistakes
    assert told.value.title == "p.yaml has 2 mistakes"
    assert first == Mistake(
        file="p.yaml", line=1, key="a", message="there is no such key", hint="there are backup_manager or policies"
    )
    assert second.line == 2
    assert told.value.exit_status == 2


def test_a_policy_that_there_is_not() -> None:
    with pytest.raises(NotFound, match="there is no policy 'q'"):
        loaded(GOOD).policy("q")


def test_the_form_of_services_means_the_same() -> None:
    form = {
        "Backup": {
            "DefaultSchedule": "0 2 * * *",
            "retentionpolicy": {"Daily": 30, "Weekly": 12, "Monthly": 12},
            "Compression": {"Enabled": True, "Algorithm": "GZIP", "Level": 6},
            "Encryption": {"Enabled": True, "KeyRotationDays": 90},
            "Storage": {"Type": "Local", "Path": "/data/backups", "MaxSize": "1TB"},
        }
    }
    same = """\
backup_manager:
  scheduling: {full_backup: "0 2 * * *"}
  retention: {keep_daily: 30, keep_weekly: 12, keep_monthly: 12}
  compression: {enabled: true, algorithm: gzip, level: 6}
  encryption: {enabled: true, key_rotation_days: 90}
  storage: {type: local, path: /data/backups, max_size: 1TB}
"""
    assert loaded(json.dumps(form)).content == loaded(same).content


def test_what_does_not_happen_by_itself_is_told() -> None:
    text = """\
backup_manager:
  storage:
    type: local
    path: /x
    cold: {storage: {url: /y}, after: 30d}
  encryption: {provider: aws_kms, key_id: alias/k, key_rotation_days: 90}
  scheduling: {full_backup: 0 0 * * *}
  verification: {schedule: 0 12 * * *}
policies:
  p:
    sources: [{type: sqlite, path: /x}]
    schedule:
      full: 0 0 * * *
      transaction_logs: "*/15 * * * *"
      configuration: on_change
"""
    told = {remark.key: (remark.line, remark.hint) for remark in pending(loaded(text))}
    manager, schedule = "backup_manager", "policies.p.schedule"
    assert {key: line for key, (line, _) in told.items()} == {
        f"{manager}.storage.cold": 5,
        f"{manager}.encryption.provider": 6,
        f"{manager}.encryption.key_rotation_days": 6,
        f"{schedule}.transaction_logs": 14,
        f"{schedule}.configuration": 15,
    }
    assert "pg receive" in told[f"{schedule}.transaction_logs"][1]
    assert "`config`" in told[f"{schedule}.configuration"][1]


def test_what_comes_at_its_time_needs_no_remark() -> None:
    text = """\
policies:
  p:
    sources:
      - {type: sqlite, name: db, path: /x}
      - {type: filesystem, name: files, paths: [/data, /etc/x]}
    schedule: {full: 0 0 * * *, configuration: on_change}
    verification: {schedule: 0 12 * * *}
"""
    assert pending(loaded(text)) == []


@pytest.mark.parametrize(
    ("name", "path", "is_one"),
    [
        (None, "/etc/nginx", True),
        (None, "/srv/app/config/x", True),
        (None, "/srv/app/app.yaml", True),
        (None, "/data/uploads", False),
        (None, "/srv/reconfigured", False),
        ("config", "/srv/app", True),
        ("files", "/srv/app", False),
    ],
)
def test_configuration_is_known_by_its_place_or_the_name_of_its_source(
    name: str | None, path: str, is_one: bool
) -> None:
    origin = FilesystemOrigin(type="filesystem", name=name, paths=(path, "/other"))
    assert (path in configuration_paths(origin)) is is_one


WHOLE: dict[str, Any] = {
    "backup_manager": {
        "storage": {
            "type": "s3",
            "bucket": "b",
            "max_size": "1TB",
            "copies": [{"url": "/c"}],
            "cold": {"storage": {"url": "/d"}},
        },
        "compression": {"algorithm": "zstd", "level": 3},
        "encryption": {"provider": "password", "password": "${SECRET}"},
        "scheduling": {"timezone": "UTC", "full_backup": "0 0 * * *"},
        "retention": {"keep_daily": 7, "keep_within": "30d"},
        "verification": {"each_run": True, "checks": ["size"], "read_data": 5},
    },
    "policies": {
        "p": {
            "tags": ["t"],
            "sources": [
                {"type": "filesystem", "paths": ["/x"], "one_file_system": True},
                {"type": "command", "name": "c", "command": ["a"]},
            ],
            "schedule": {"full": "0 0 * * *"},
            "hooks": {"before": [{"command": ["a"], "timeout": "1h"}]},
        }
    },
}
ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**40, "", "${SECRET}", "x", [], {}, [[]], {"type": ["s3"]}, {"<s3>": 1})


def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree, but its root."""
    if at:
        yield at
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


@pytest.mark.parametrize("shift", range(4))
def test_whatever_stands_anywhere_is_taken_or_told_and_no_secret_is(shift: int) -> None:
    told = 0
    for number, (*above, last) in enumerate(places(WHOLE)):
        odd = copy.deepcopy(WHOLE)
        node = odd
        for key in above:
            node = node[key]
        node[last] = ODD[(number * 4 + shift) % len(ODD)]
        try:
            found = loaded(json.dumps(odd), {"SECRET": "canary"})
        except PolicyInvalid as error:
            told += 1
            text = " ".join(map(str, error.mistakes))
        else:
            text = "\n".join(as_text(show(found))) + " ".join(map(str, pending(found)))
        assert "canary" not in text
    assert told > 20
