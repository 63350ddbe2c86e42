"""The test vectors of docs/format.md, computed by the program, and the text that they have there."""

from __future__ import annotations

from typing import Final

import msgspec
import zstandard

from backstay.codec.cipher import expand
from backstay.codec.compression import Compressor
from backstay.codec.digest import ChunkIds, sha256
from backstay.repository.format import BlobKind, RecordKind, RepoHeader, wal_binding_name
from backstay.repository.keys.slots import SlotRemoval
from backstay.repository.nodes import Content, Node
from backstay.repository.packs.pack import Member, PackBuilder
from backstay.repository.records import new_header, padded_length, seal_record
from backstay.repository.snapshots.store import SIGNED_AS
from backstay.repository.trees.listings import encode_node
from backstay.trust.secrets import Secret
from backstay.trust.signing import Signer
from backstay.trust.slots import Argon2Cost, wrap

ROOT: Final = b"\x11" * 32
DATA_KEY: Final = b"\x22" * 32
SEED: Final = b"\x33" * 32
SECRET: Final = b"\x44" * 32
REPOSITORY: Final = bytes(range(16))
CREATED: Final = "2026-01-01T00:00:00+00:00"
PASSPHRASE: Final = "correct ho\u0308rse"  # decomposed, as some keyboards type it
KEY_OF_VECTORS: Final = b"backstay/v1/object"
HELLO: Final = b"hello, world\n"
MEMBERS: Final = (b"alpha", b"beta!")
_BEGIN, _END = "<!-- vectors begin -->\n", "<!-- vectors end -->"
_WIDTH: Final = 96


def fixed(count: int) -> bytes:
    """A source of randomness that has none."""
    return b"\x55" * count


def repo_json() -> bytes:
    return RepoHeader(format=1, uuid=REPOSITORY.hex(), features=(), suite=1, created=CREATED).encode()


def record() -> bytes:
    """A slot removal, the shortest record."""
    return seal_record(
        RecordKind.SLOT_REMOVAL,
        SlotRemoval(bytes(range(32)), 1_767_225_600_000_000_000),
        repository=REPOSITORY,
        epoch=1,
        key=DATA_KEY,
        random=fixed,
    )


def pack() -> bytes:
    """One chunk, one bundle of two, the padding."""
    ids, plain = ChunkIds(expand(ROOT, b"backstay/v1/chunk-id")), Compressor("none")
    builder = PackBuilder(RecordKind.DATA_PACK, repository=REPOSITORY, epoch=1, key=DATA_KEY, random=fixed)
    builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, ids.of(HELLO), HELLO, (), plain))
    raw = b"".join(MEMBERS)
    members = [Member(ids.of(data), len(data)) for data in MEMBERS]
    builder.append(builder.seal(builder.reserve(), BlobKind.BUNDLE, ids.of(raw), raw, members, plain))
    builder.finish()
    return bytes(builder.data)


def vectors() -> dict[str, str]:
    """Every vector by its name, as text."""
    ids, signer = ChunkIds(expand(ROOT, b"backstay/v1/chunk-id")), Signer(SEED)
    header, _ = new_header(RecordKind.SLOT_REMOVAL, REPOSITORY, 1, DATA_KEY, fixed)
    slot = wrap(
        Secret.passphrase(PASSPHRASE),
        ROOT,
        sha256(repo_json()),
        created=CREATED,
        note="note",
        cost=Argon2Cost(64, 1, 1),
        random=fixed,
    ).encode()
    node = Node(b"caf\xe9", 0o100644, 1000, 100, "ann", "users", 13, -1, Content(0, ids.of(HELLO)), sha256(HELLO))
    removal = msgspec.msgpack.encode(SlotRemoval(bytes(range(32)), 1_767_225_600_000_000_000))
    return {
        "root": ROOT.hex(),
        "repo.json": repo_json().decode(),
        "SHA-256 of repo.json": sha256(repo_json()).hex(),
        "secret": SECRET.hex(),
        "secret as a recovery key": Secret("recovery", SECRET).printed(),
        "secret as a key file": Secret("keyfile", SECRET).printed(),
        "passphrase as typed, in UTF-8": PASSPHRASE.encode().hex(),
        "passphrase as used": Secret.passphrase(PASSPHRASE).value.hex(),
        "slot of the passphrase": slot.decode(),
        "name of the slot": "keys/slots/" + sha256(slot).hex(),
        "wrapping key": expand(ROOT, b"backstay/v1/epoch").hex(),
        "id key": expand(ROOT, b"backstay/v1/chunk-id").hex(),
        "chunker secret": str(int.from_bytes(expand(ROOT, b"backstay/v1/chunker", 8), "big") >> 1),
        "data key of epoch 1": DATA_KEY.hex(),
        "signing seed of epoch 1": SEED.hex(),
        "public key of epoch 1": signer.public.hex(),
        "P of 1, 9, 100, 1000, 65537": ", ".join(str(padded_length(n)) for n in (1, 9, 100, 1000, 65537)),
        "header of a slot removal": header.hex(),
        "key of that header": expand(DATA_KEY, KEY_OF_VECTORS + header[:60], 64)[:32].hex(),
        "body of the removal": removal.hex(),
        "record of the removal": record().hex(),
        "signature over that record": signer.sign(SIGNED_AS, record()).hex(),
        "chunk": HELLO.hex(),
        "id of the chunk": ids.of(HELLO).hex(),
        "id of an empty chunk": ids.of(b"").hex(),
        "members of the bundle": ", ".join(data.hex() for data in MEMBERS),
        "zstd that wrote the footer": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "pack with chunk and bundle": pack().hex(),
        "name of the pack": f"packs/{sha256(pack()).hex()[:2]}/{sha256(pack()).hex()}",
        "framed node": encode_node(node).hex(),
        "name of cluster main": wal_binding_name(expand(ROOT, b"backstay/v1/wal-name" + b"main", 16)),
    }


def written(found: dict[str, str]) -> str:
    """Vectors as the document shows them."""
    lines = []
    for name, value in found.items():
        lines.append(f"{name}:")
        lines += [f"    {value[at : at + _WIDTH]}" for at in range(0, len(value), _WIDTH)]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def parsed(document: str) -> dict[str, str]:
    """Vectors as the document says them."""
    text = document.partition(_BEGIN)[2].partition(_END)[0]
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("    "):
            found[name] = found.get(name, "") + line[4:]
        elif line.endswith(":"):
            name = line[:-1]
    return found


def replaced(document: str) -> str:
    """The document with the vectors of today's program."""
    head, _, rest = document.partition(_BEGIN)
    return head + _BEGIN + written(vectors()) + _END + rest.partition(_END)[2]
