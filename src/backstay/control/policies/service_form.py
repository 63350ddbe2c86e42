"""The JSON form of services, `{"Backup": {"DefaultSchedule": …}}`, as the same keys as any policy file.

Its words are taken in any case, as their own programs do; mistakes are told at the keys as they stand there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from backstay.control.policies.document import Document, Entry, Key, Node, Scalar, Table
from backstay.control.policies.mistakes import NO_SUCH_KEY, hint_for
from backstay.errors import Mistake

ROOT: Final = "Backup"
_Words: TypeAlias = Mapping[str, str]

_TABLES: Final[Mapping[str, tuple[str, _Words]]] = {
    "RetentionPolicy": (
        "retention",
        {
            "Last": "keep_last",
            "Hourly": "keep_hourly",
            "Daily": "keep_daily",
            "Weekly": "keep_weekly",
            "Monthly": "keep_monthly",
            "Yearly": "keep_yearly",
        },
    ),
    "Compression": ("compression", {"Enabled": "enabled", "Algorithm": "algorithm", "Level": "level"}),
    "Encryption": (
        "encryption",
        {
            "Enabled": "enabled",
            "Provider": "provider",
            "Password": "password",
            "KeyFile": "key_file",
            "KeyId": "key_id",
            "KeyRotationDays": "key_rotation_days",
        },
    ),
}
_STORAGE: Final = "Storage"  # its fields depend on the type: `MaxSize` is `max_size`
_SCHEDULE: Final = ("DefaultSchedule", "full_backup")
_TIME_ZONE: Final = ("TimeZone", "timezone")
_CHOICES: Final = ("type", "algorithm", "provider")  # whose values are words, written with a capital there
_INNER_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_service_form(document: Document) -> bool:
    """Whether a document is of this form."""
    return [key.casefold() for key in document.root.entries] == [ROOT.casefold()]


def as_policy_file(document: Document) -> Document:
    """The document with the keys of policy files."""
    ((name, entry),) = document.root.entries.items()
    if not isinstance(entry.node, Table):
        wrong = document.mistake((name,), "must be a table of keys")
        return replace(document, root=Table({}, entry.line), mistakes=(*document.mistakes, wrong))
    form = _Form(document)
    settings = form.settings(entry.node, (name,))
    root = Table({"backup_manager": Entry(settings, entry.line, (name,))}, entry.line)
    return replace(document, root=root, mistakes=(*document.mistakes, *form.mistakes))


@dataclass(slots=True)
class _Form:
    document: Document
    mistakes: list[Mistake] = field(default_factory=list)

    def settings(self, table: Table, at: Key) -> Table:
        known = [*_TABLES, _STORAGE, _SCHEDULE[0], _TIME_ZONE[0]]
        entries: dict[str, Entry] = {}
        times: dict[str, Entry] = {}
        for key, entry in table.entries.items():
            word, told = _meant(key, known), (*at, key)
            if word is None:
                self._unknown(told, known)
            elif word in (_SCHEDULE[0], _TIME_ZONE[0]):
                times[_SCHEDULE[1] if word == _SCHEDULE[0] else _TIME_ZONE[1]] = replace(entry, told=told)
            elif word == _STORAGE:
                entries["storage"] = Entry(self._storage(entry.node, told), entry.line, told)
            else:
                name, words = _TABLES[word]
                entries[name] = Entry(self._table(entry.node, words, told), entry.line, told)
        if times:
            entries["scheduling"] = Entry(Table(times, table.line), min(one.line for one in times.values()), at)
        return Table(entries, table.line)

    def _table(self, node: Node, words: _Words, at: Key) -> Node:
        if not isinstance(node, Table):
            return node
        entries: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            word = _meant(key, list(words))
            if word is None:
                self._unknown((*at, key), list(words))
            else:
                name = words[word]
                entries[name] = Entry(_choice(name, entry.node), entry.line, (*at, key))
        return Table(entries, node.line)

    def _storage(self, node: Node, at: Key) -> Node:
        if not isinstance(node, Table):
            return node
        entries: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            name = _INNER_CAPITAL.sub("_", key).lower()
            entries[name] = Entry(_choice(name, entry.node), entry.line, (*at, key))
        return Table(entries, node.line)

    def _unknown(self, told: Key, known: list[str]) -> None:
        hint = hint_for(str(told[-1]), [word.lower() for word in known])
        for word in known:
            hint = hint.replace(f"mean {word.lower()}?", f"mean {word}?")
        self.mistakes.append(self.document.mistake(told, NO_SUCH_KEY, hint if hint.startswith("did") else ""))


def _meant(key: str, known: list[str]) -> str | None:
    return next((word for word in known if word.casefold() == key.casefold()), None)


def _choice(name: str, node: Node) -> Node:
    if name in _CHOICES and isinstance(node, Scalar) and isinstance(node.value, str):
        return replace(node, value=node.value.lower())
    return node
