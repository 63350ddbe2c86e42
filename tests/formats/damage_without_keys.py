"""Damages that need no keys: what disks, networks and strangers do to objects."""

from __future__ import annotations

import json
from typing import Any, Final

from backstay.codec.digest import sha256
from tests.formats.forge import (
    FIRSTS,
    Change,
    Damage,
    Objects,
    names,
    stranger,
)

_KINDS_WITH_SIBLINGS: Final = {"slot", "data pack", "metadata pack", "index segment", "snapshot"}
# What vanishes without a trace, because nothing else names it, or because it says only what was.
_UNSEEN_WHEN_LOST: Final = {"slot removal", "compromise mark", "session", "waiting list", "verdict"}
# What a restore does not look at; the snapshot of the golden drop is gone already.
_NOT_FOR_READING: Final = {"slot removal", "compromise mark", "session", "collection", "waiting list", "slot", "drop"}
_FOREIGN_NAMES: Final = (
    "snapshots/README",
    "index/notes.txt",
    "packs/00/short",
    "drops/x",
    "gc/1",
    "keys/epochs/1",
    "sessions/x",
    "keys/slots/x",
)


def flipped(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = bytearray(objects[name])
        data[len(data) // 2] ^= 0x10
        return {**objects, name: bytes(data)}

    return change


def flipped_at(kind: str, at: int) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = bytearray(objects[name])
        data[at] ^= 0x02
        return {**objects, name: bytes(data)}

    return change


def cut(kind: str, keep: float) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = objects[name]
        return {**objects, name: data[: min(len(data) - 1, int(len(data) * keep))]}

    return change


def longer(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        return {**objects, name: objects[name] + b"\0"}

    return change


def lost(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        return {other: data for other, data in objects.items() if other != name}

    return change


def _lost_oldest(objects: Objects) -> Objects:
    """The newest snapshot may vanish unseen, since nothing names it yet; not one that another follows."""
    oldest = min(names(objects, "snapshot"))
    return {name: data for name, data in objects.items() if name != oldest}


def all_lost(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        return {name: data for name, data in objects.items() if not name.startswith(FIRSTS[kind])}

    return change


def swapped(kind: str, other: str | None = None) -> Change:
    """Two objects of one kind, each under the other's name."""

    def change(objects: Objects) -> Objects:
        one = names(objects, kind)[0]
        two = names(objects, other)[0] if other else names(objects, kind)[1]
        return {**objects, one: objects[two], two: objects[one]}

    return change


def foreign(kind: str) -> Change:
    """The same object of a repository made by the same program, with other random numbers and the same passphrase."""

    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        strangers = stranger()
        return {**objects, name: strangers[names(strangers, kind)[0]]}

    return change


def added_foreign(kind: str) -> Change:
    """A foreign object beside ours, under its own name."""

    def change(objects: Objects) -> Objects:
        strangers = stranger()
        name = names(strangers, kind)[0]
        return {**objects, name: strangers[name]}

    return change


def named(name: str, data: bytes = b"") -> Change:
    return lambda objects: {**objects, name: data}


def header_of_repository(**changes: Any) -> Change:
    def change(objects: Objects) -> Objects:
        header = {**json.loads(objects["repo.json"]), **changes}
        return {**objects, "repo.json": json.dumps(header, separators=(",", ":")).encode()}

    return change


def _reformatted(**style: Any) -> Change:
    def change(objects: Objects) -> Objects:
        return {**objects, "repo.json": json.dumps(json.loads(objects["repo.json"]), **style).encode()}

    return change


def slot(only: str, **changes: Any) -> Change:
    """The slot of a kind with other members, under a name that fits."""

    def change(objects: Objects) -> Objects:
        left = dict(objects)
        for name in names(objects, "slot"):
            content = json.loads(objects[name])
            if content["kind"] == only:
                del left[name]
                data = json.dumps({**content, **changes}, separators=(",", ":")).encode()
                left[f"keys/slots/{sha256(data).hex()}"] = data
        return left

    return change


def added_slot(text: bytes) -> Change:
    return lambda objects: {**objects, f"keys/slots/{sha256(text).hex()}": text}


def further_slot(**changes: Any) -> Change:
    """A further slot that this program cannot use."""

    def change(objects: Objects) -> Objects:
        content = json.loads(objects[names(objects, "slot")[0]])
        data = json.dumps({**content, **changes}, separators=(",", ":")).encode()
        return added_slot(data)(objects)

    return change


def _generic() -> list[Damage]:
    found = []
    for kind in FIRSTS:
        read = kind not in _NOT_FOR_READING
        found += [
            Damage(f"{kind}: a bit flipped", flipped(kind), engine=read),
            Damage(
                f"{kind}: last byte gone", cut(kind, 1.0), engine=read and kind not in ("data pack", "metadata pack")
            ),
            Damage(f"{kind}: second half gone", cut(kind, 0.5), engine=read),
            Damage(f"{kind}: empty", cut(kind, 0.0), engine=read),
            Damage(f"{kind}: a byte too many", longer(kind), engine=read and not kind.endswith(" pack")),
            Damage(
                f"{kind}: lost",
                _lost_oldest if kind == "snapshot" else lost(kind),
                verifier=kind not in _UNSEEN_WHEN_LOST,
                engine=read and kind not in ("snapshot", "verdict"),
            ),
            Damage(f"{kind}: of a foreign repository", foreign(kind), engine=read),
        ]
        if kind in _KINDS_WITH_SIBLINGS:
            found.append(Damage(f"{kind}: swapped with another", swapped(kind), engine=read))
    return found


def _without_keys() -> list[Damage]:
    return [
        Damage("epochs swapped", swapped("epoch", "later epoch")),
        Damage("all slots lost", all_lost("slot")),
        Damage("all index segments lost", all_lost("index segment")),
        Damage("all data packs lost", all_lost("data pack")),
        Damage("all metadata packs lost", all_lost("metadata pack")),
        Damage("all epochs lost", all_lost("epoch")),
        Damage("a foreign snapshot added", added_foreign("snapshot")),
        Damage("a foreign index segment added", added_foreign("index segment"), engine=False),
        Damage("a foreign pack added", added_foreign("data pack"), engine=False),
        Damage("a foreign slot added", added_foreign("slot"), engine=False, verifier=False),
        *(
            Damage(f"snapshot header: {what}", flipped_at("snapshot", at))
            for what, at in (("magic", 0), ("version", 4), ("kind", 5), ("suite", 6), ("flags", 7), ("repository", 9))
        ),
        *(
            Damage(f"snapshot header: {what}", flipped_at("snapshot", at))
            for what, at in (("epoch", 27), ("salt", 30), ("commitment", 61), ("public key", -90), ("signature", -1))
        ),
        Damage("a newer format", header_of_repository(format=2), says="another format"),
        Damage("an unknown feature", header_of_repository(features=["filters"]), says="another format"),
        Damage("an unknown suite", header_of_repository(suite=255), says="another format"),
        Damage("repo.json says another uuid", header_of_repository(uuid="00" * 16)),
        Damage("repo.json says a uuid that is none", header_of_repository(uuid="zz")),
        Damage("repo.json nests without end", named("repo.json", b"[" * 100_000)),
        Damage("repo.json is huge", named("repo.json", b" " * 200_000), says="repo.json"),
        Damage("repo.json: white space", _reformatted(indent=1), says="canonical"),
        Damage("repo.json: members in another order", _reformatted(sort_keys=True), says="canonical"),
        Damage("repo.json: a member too many", header_of_repository(more=1), says="canonical"),
        *(Damage(f"a foreign object {name}", named(name), engine=False, says="foreign") for name in _FOREIGN_NAMES),
        Damage("slot: absurd memory", slot("passphrase", cost={"memory_kib": 1 << 40, "iterations": 1, "lanes": 1})),
        Damage(
            "slot: more memory than 2 GiB",
            slot("passphrase", cost={"memory_kib": (2 << 20) + 1, "iterations": 1, "lanes": 1}),
            says="absurd",
        ),
        Damage("slot: absurd passes", slot("passphrase", cost={"memory_kib": 64, "iterations": 1 << 31, "lanes": 1})),
        Damage(
            "slot: less memory than its lanes need",
            slot("passphrase", cost={"memory_kib": 8, "iterations": 1, "lanes": 64}),
        ),
        Damage("slot: no cost", slot("passphrase", cost=None)),
        Damage("slot: another salt", slot("passphrase", salt="00" * 32)),
        Damage("slot: a salt that is none", slot("passphrase", salt="zz")),
        Damage("slot: another sealed key", slot("passphrase", sealed="00" * 80)),
        Damage("slot: claims to be a key file's", slot("passphrase", kind="keyfile")),
        Damage("slot beside ours: nests without end", added_slot(b"[" * 60_000), engine=False),
        Damage("slot beside ours: too large", added_slot(b" " * 70_000), engine=False),
        Damage("slot beside ours: of another kind", further_slot(kind="age"), verifier=False, engine=False),
        Damage("slot beside ours: of a newer version", further_slot(version=2), verifier=False, engine=False),
        Damage("slot beside ours: with a new member", further_slot(recipient="x"), verifier=False, engine=False),
    ]


WITHOUT_KEYS: Final = [*_generic(), *_without_keys()]
