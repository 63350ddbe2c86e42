"""What `policy show` tells: what holds in the end, who said it, and nothing that is secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.control.policies.showing import as_document, as_text, show
from tests.control.policies.files import loaded

FILE = """\
backup_manager:
  storage: {type: s3, bucket: b, prefix: prod/}
  scheduling: {full_backup: "0 0 * * *"}
  retention: {keep_daily: 7, keep_weekly: 4}
policies:
  own:
    sources: [{type: postgresql, connection: "${DB}", schemas: [public]}]
    schedule: {incremental: "0 */6 * * *", timezone: Europe/Berlin}
    retention: {keep_daily: 30}
  other:
    sources: [{type: postgresql, connection: "postgresql://u:hunter2@h/d"}]
"""
ENVIRON = {"DB": "postgresql://u:canary@h/d"}


def shown(text: str, environ: dict[str, str] | None = None) -> Any:
    return {key: as_document(node) for key, node in show(loaded(text, environ)).items()}


def test_every_value_says_where_it_comes_from() -> None:
    document = shown(FILE, ENVIRON)
    own, other = document["policies"]["own"], document["policies"]["other"]
    assert own["retention"] == {"keep_daily": {"value": 30, "from": "file"}}  # a block replaces a block
    assert other["retention"]["keep_weekly"] == {"value": 4, "from": "backup_manager"}
    assert own["schedule"]["timezone"] == {"value": "Europe/Berlin", "from": "file"}
    assert other["schedule"] == {
        "timezone": {"value": "UTC", "from": "built-in"},
        "full": {"value": "0 0 * * *", "from": "backup_manager"},
    }
    assert document["backup_manager"]["compression"]["algorithm"] == {"value": "zstd", "from": "built-in"}


def test_secrets_are_left_out() -> None:
    told = json.dumps(shown(FILE, ENVIRON)) + "\n".join(as_text(show(loaded(FILE, ENVIRON))))
    assert "canary" not in told
    assert "hunter2" not in told
    assert "postgresql://u:***@h/d" in told


def test_of_addresses_for_messages_only_their_kind_is_told() -> None:
    text = """\
backup_manager:
  notifications:
    targets:
      mail: {type: email, to: [a@b], sender: c@d, server: h, user: u, password: "${PW}"}
      chat: {type: slack, webhook: https://hooks.slack.com/services/hunter2/hunter2/hunter2}
      hook: {type: webhook, url: "https://u:hunter2@h/hunter2?k=hunter2"}
      other: {type: apprise, url: "ntfys://hunter2/hunter2"}
policies:
  p: {sources: [{type: sqlite, path: /x}], notifications: {targets: [chat], ping: "https://h/hunter2"}}
"""
    told = json.dumps(shown(text, {"PW": "canary"})) + "\n".join(as_text(show(loaded(text, {"PW": "canary"}))))
    assert "canary" not in told
    assert "hunter2" not in told
    targets = shown(text, {"PW": "canary"})["backup_manager"]["notifications"]["targets"]
    assert targets["chat"]["webhook"] == {"value": "https://***", "from": "file"}
    assert targets["other"]["url"] == {"value": "ntfys://***", "from": "file"}
    assert targets["mail"]["password"] == {"value": "***", "from": "file"}
    assert targets["mail"]["to"] == [{"value": "a@b", "from": "file"}]


def test_a_secret_of_the_defaults_is_none_of_a_policy_either() -> None:
    text = FILE.replace('full_backup: "0 0 * * *"', 'full_backup: "${CRON}"')
    found = shown(text, {**ENVIRON, "CRON": "5 5 * * *"})
    assert found["policies"]["other"]["schedule"]["full"] == {"value": "***", "from": "backup_manager"}


_words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10).filter(
    lambda text: text.strip()
)
_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True).filter(lambda name: name.lower() != "latest")
_paths = _words.map(lambda word: f"/{word}")
_crons = st.sampled_from(["0 0 * * 0", "*/15 * * * *", "0 2 1 jan mon"])
_files = st.fixed_dictionaries(
    {"type": st.just("filesystem"), "paths": st.lists(_paths, min_size=1, max_size=2)},
    optional={"exclude": st.lists(_words, max_size=2), "one_file_system": st.booleans(), "name": _names},
)
_commands = st.fixed_dictionaries(
    {"type": st.just("command"), "command": st.lists(_words, min_size=1, max_size=2), "name": st.just("a-command")}
)
_retention = st.fixed_dictionaries(
    {"keep_last": st.integers(1, 9)},
    optional={"keep_within": st.just("1y6m"), "keep_tags": st.lists(_words, max_size=2)},
)
_schedule = st.fixed_dictionaries({}, optional={"full": _crons, "timezone": st.sampled_from(["UTC", "Europe/Berlin"])})
_hooks = st.fixed_dictionaries(
    {"before": st.lists(st.fixed_dictionaries({"command": st.lists(_words, min_size=1, max_size=2)}), max_size=1)}
)
_policies = st.fixed_dictionaries(
    {"sources": _files.map(lambda one: [one]) | st.tuples(_files, _commands).map(list)},
    optional={
        "description": _words,
        "tags": st.lists(_words, max_size=2),
        "retention": _retention,
        "schedule": _schedule,
        "hooks": _hooks,
    },
)
_file = st.fixed_dictionaries(
    {"policies": st.dictionaries(_names, _policies, max_size=2)},
    optional={
        "backup_manager": st.fixed_dictionaries(
            {},
            optional={
                "retention": _retention,
                "storage": st.fixed_dictionaries({"type": st.just("local"), "path": _paths}),
                "scheduling": st.fixed_dictionaries({"full_backup": _crons}),
            },
        )
    },
)


def _values(node: Any) -> Any:
    """What is shown, whoever said it."""
    if isinstance(node, list):
        return [_values(item) for item in node]
    return node["value"] if node.keys() == {"value", "from"} else {name: _values(inner) for name, inner in node.items()}


@pytest.mark.property
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_file)
def test_what_is_shown_is_a_policy_file_that_says_the_same(content: dict[str, Any]) -> None:
    text = json.dumps(content).replace("$", "$$")
    first = show(loaded(text))
    again = show(loaded("\n".join(as_text(first)) + "\n"))
    assert _values(as_document(dict(again))) == _values(as_document(dict(first)))
