"""Signed heads of the audit log. Whoever keeps one elsewhere can tell later whether what came before was changed.

The chain alone shows no change by somebody who can write into the database and makes all later hashes anew, nor that
its end was cut off. A checkpoint does, if it lies where that somebody does not reach: `CheckpointFile` appends each to
a file beside the service's key, and people may keep copies.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.locking import take
from backstay.catalog.models import AuditCheckpoint, AuditEntry
from backstay.codec.canonical_json import canonical
from backstay.core.durable_names import sync_directory
from backstay.core.ids import Random, is_digest
from backstay.errors import CatalogUnavailable, InvalidRequest
from backstay.trust.signing import PUBLIC_BYTES, SEED_BYTES, SIGNATURE_BYTES, Signer, is_signed

SIGNED_AS: Final = b"application/vnd.backstay.audit-checkpoint.v1+json"
_LONGEST: Final = 4096  # of a checkpoint in a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """That the log had `seq` entries at a time, the last of them with this hash. Keys and signatures in hexadecimal."""

    seq: int
    time: datetime
    hash: str
    public_key: str
    signature: str

    @property
    def is_genuine(self) -> bool:
        """Whether its own key signed it."""
        try:
            public, signature = bytes.fromhex(self.public_key), bytes.fromhex(self.signature)
        except ValueError:
            return False
        return is_signed(public, signature, SIGNED_AS, _body(self.seq, self.time, self.hash))

    def as_document(self) -> dict[str, Any]:
        """The form in which it is kept."""
        return {
            "seq": self.seq,
            "time": _stamp(self.time),
            "hash": self.hash,
            "public_key": self.public_key,
            "signature": self.signature,
        }

    @classmethod
    def of_text(cls, text: str, *, where: str) -> Self:
        """One that was kept. Raises InvalidRequest."""
        try:
            found = json.loads(text[:_LONGEST])
            checkpoint = cls(
                seq=int(found["seq"]),
                time=datetime.fromisoformat(found["time"]),
                hash=_hexadecimal(found["hash"], 32),
                public_key=_hexadecimal(found["public_key"], PUBLIC_BYTES),
                signature=_hexadecimal(found["signature"], SIGNATURE_BYTES),
            )
            if checkpoint.time.tzinfo is None or checkpoint.seq < 1:
                raise ValueError("a time without a zone, or no number of an entry")
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise InvalidRequest(
                f"{where} is no checkpoint of an audit log",
                cause=str(error) or type(error).__name__,
                hint="give a file that `backstay audit checkpoint` wrote",
            ) from error
        return checkpoint


def add_checkpoint(session: Session, signer: Signer, now: datetime) -> Checkpoint | None:
    """Sign the last entry; None if it is signed already, or there is none."""
    take(session, "audit")
    last = session.execute(select(AuditEntry.seq, AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)).first()
    if last is None or session.get(AuditCheckpoint, last.seq) is not None:
        return None
    now = now.astimezone(UTC)
    made = Checkpoint(
        seq=last.seq,
        time=now,
        hash=last.hash,
        public_key=signer.public.hex(),
        signature=signer.sign(SIGNED_AS, _body(last.seq, now, last.hash)).hex(),
    )
    session.add(
        AuditCheckpoint(
            seq=made.seq, time=made.time, hash=made.hash, public_key=made.public_key, signature=made.signature
        )
    )
    return made


def stored_checkpoints(session: Session) -> list[Checkpoint]:
    """Those in the catalog, oldest first."""
    rows = session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.seq))
    return [
        Checkpoint(seq=row.seq, time=row.time, hash=row.hash, public_key=row.public_key, signature=row.signature)
        for row in rows
    ]


class CheckpointFile:
    """Checkpoints one behind the other, each on a line; outside of the database, for who can write only there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, checkpoint: Checkpoint) -> None:
        """Add one, durably. A crash leaves a line that is whole, or the beginning of one, which `read` passes over."""
        line = json.dumps(checkpoint.as_document()).encode() + b"\n"
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)
                if not size:
                    sync_directory(self.path.parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CatalogUnavailable(f"{self.path} cannot be written", cause=error.strerror or "") from error

    def read(self) -> list[Checkpoint]:
        """All that are whole; none if there is no file."""
        try:
            text = self.path.read_text(errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CatalogUnavailable(f"{self.path} cannot be read", cause=error.strerror or "") from error
        found = []
        for line in filter(None, map(str.strip, text.splitlines())):
            try:
                found.append(Checkpoint.of_text(line, where=str(self.path)))
            except InvalidRequest:
                continue  # the beginning of a line that a crash left
        return found


def audit_signer(file: Path, random: Random = os.urandom) -> Signer:
    """The service's own key, made at the first time; only its owner may read the file.

    Order: the key is durable under another name before it has its own, so that a crash leaves a whole one or none;
    of two processes that make one the first wins, and both use what lies there.
    """
    try:
        if not file.exists():
            _make_key(file, random)
        seed = bytes.fromhex(file.read_text().strip())
    except ValueError as error:
        raise _no_key(file, "it is not hexadecimal") from error
    except OSError as error:
        raise CatalogUnavailable(f"{file} cannot be used", cause=error.strerror or "") from error
    if len(seed) != SEED_BYTES:
        raise _no_key(file, f"it has not {SEED_BYTES} bytes")
    return Signer(seed)


def trusted_keys(file: Path, *, alone: bool) -> list[str] | None:
    """The public keys that may have signed a log: the service's own if it is `alone` with it and has one, else any."""
    return [audit_signer(file).public.hex()] if alone and file.exists() else None


def _no_key(file: Path, cause: str) -> InvalidRequest:
    return InvalidRequest(f"{file} is no key", cause=cause, hint="put it back from a copy, or remove it for a new one")


def _make_key(file: Path, random: Random) -> None:
    made = file.with_name(f"{file.name}.{random(8).hex()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, random(SEED_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(made, file)
    except FileExistsError:
        pass  # another process was faster
    finally:
        made.unlink()
    sync_directory(file.parent)


def _body(seq: int, time: datetime, digest: str) -> bytes:
    return canonical({"seq": seq, "time": _stamp(time), "hash": digest})


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _hexadecimal(text: str, size: int) -> str:
    if len(bytes.fromhex(text)) != size or (size == 32 and not is_digest(text)):
        raise ValueError(f"{text[:80]!r} is not {size} bytes in hexadecimal")
    return text
