"""`key`: who can open the repository."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import secrets
from backstay.cli.context import Context, context_of
from backstay.cli.default_repository import show_new_recovery
from backstay.cli.options import argument, flag, option
from backstay.cli.render import local_time, out, print_heading, print_table
from backstay.control.opening.key_files import finish_key_file, refuse_existing, unfinished, write_secret_file
from backstay.control.opening.secrets import read_key_file
from backstay.core.clock import datetime_from_ns
from backstay.core.quantities import plural
from backstay.errors import BackstayError

if TYPE_CHECKING:
    from backstay.repository.keys.slots import SlotInfo
    from backstay.repository.repository import Repository
    from backstay.trust.secrets import Secret

_KINDS = {"passphrase": "password", "keyfile": "key file", "recovery": "recovery key"}


def list_keys(ctx: typer.Context) -> int:
    """List the passwords and keys that open the repository."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        slots = repository.slots.list()
        epochs = repository.keyring.epochs
    document = {
        "slots": slots,
        "epochs": [
            {"number": e.number, "created": datetime_from_ns(e.created_ns), "compromised": e.compromised}
            for e in epochs
        ],
    }

    def show() -> None:
        rows = [(slot.id[:8], _KINDS.get(slot.kind, slot.kind), _local(slot.created), _note(slot)) for slot in slots]
        print_table(("ID", "Opens with", "Created", "Note"), rows, context.environ)
        out()
        print_heading("Data keys", context.environ)
        ages = [
            (str(e.number), local_time(datetime_from_ns(e.created_ns)), "compromised" if e.compromised else "")
            for e in epochs
        ]
        print_table((">Epoch", "Since", ""), ages, context.environ)

    context.result(document, show)
    return 0


def _note(slot: SlotInfo) -> str:
    return f"{slot.note} (removed, but still there)".lstrip() if slot.removed else slot.note


def _local(created: str) -> str:
    """The time in a slot, if it is one: a slot is not authenticated until it is opened."""
    try:
        return local_time(datetime.fromisoformat(created))
    except ValueError:
        return created


def add_key(
    ctx: typer.Context,
    new_password_file: Annotated[
        Path | None, option("FILE", "Read the new password from a file; else BACKSTAY_NEW_PASSWORD, or a prompt.")
    ] = None,
    new_key_file: Annotated[Path | None, option("FILE", "Write a new key file instead.")] = None,
    note: Annotated[str, option("TEXT", "A remark that `key list` shows.")] = "",
) -> int:
    """Let one more password or key file open the repository."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        created = context.clock.now().isoformat(timespec="seconds")
        if new_key_file is not None:
            secret, slot = _add_key_file(context, repository, new_key_file, note, created)
        else:
            secret = secrets.new_secret(context.environ, password_file=new_password_file)
            slot = repository.slots.add(secret, repository.header_digest, note=note, created=created)
    context.result({"slot": slot, "kind": secret.kind}, lambda: context.say(f"added {_KINDS[secret.kind]} {slot[:8]}"))
    return 0


def _add_key_file(context: Context, repository: Repository, path: Path, note: str, created: str) -> tuple[Secret, str]:
    """Unfinished key file, slot, key file in its place: a run that stops between is continued by the next one."""
    from backstay.trust.secrets import Secret

    refuse_existing(path)
    begun = unfinished(path)
    if begun.exists():
        context.say(f"going on with {begun}, which an earlier run began")
        secret = read_key_file(begun)
    else:
        secret = Secret.new_keyfile()
        write_secret_file(begun, secret.printed())  # durable before the repository relies on it
    slot = repository.slots.opened_by(secret)
    if slot is None:
        try:
            slot = repository.slots.add(secret, repository.header_digest, note=note, created=created)
        except BackstayError:
            if repository.slots.opened_by(secret) is None:  # else it was stored all the same
                begun.unlink()
            raise
    finish_key_file(path)
    return secret, slot


def remove_key(
    ctx: typer.Context,
    slot: Annotated[str, argument("ID", "The beginning of an id that `key list` shows.")],
) -> int:
    """Let a password or key open the repository no more."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        repository.slots.remove(slot, context.clock)

    def show() -> None:
        context.say(f"removed {slot}")
        context.say("whoever has opened the repository with it may have kept its data keys: see `backstay key rotate`")

    context.result({"removed": slot}, show)
    return 0


def rotate_key(
    ctx: typer.Context,
    compromised: Annotated[
        bool, flag("The old data keys are known to others: `gc` rewrites what they protect.", "--compromised")
    ] = False,
) -> int:
    """Begin a new data key; what is stored stays readable."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        keyring = repository.keyring
        old = [epoch.number for epoch in keyring.epochs if not epoch.compromised]
        new = keyring.begin_epoch(context.clock).number
        if compromised:
            for number in old:
                keyring.mark_compromised(number, context.clock)

    def show() -> None:
        context.say(f"data key {new} is used from now on")
        if compromised:
            context.say(f"{plural(len(old), 'older data key')} marked as compromised: run `backstay gc`")

    context.result({"epoch": new, "compromised": old if compromised else []}, show)
    return 0


def recovery_key(ctx: typer.Context) -> int:
    """Print a new recovery key, once."""
    context: Context = context_of(ctx)
    with context.open(index=False) as repository:
        context.interrupts.too_late()
        slot = show_new_recovery(context, repository)
    context.result({"slot": slot, "kind": "recovery"}, lambda: context.say(f"added recovery key {slot[:8]}"))
    return 0
