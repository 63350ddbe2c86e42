"""Verify a repository: every object is what its name says, every snapshot has all that it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

from backstay.core.events import EventSink, Finished, Progress, Started, Warned, ignore
from backstay.core.ids import is_digest, is_ulid
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import BackstayError, CorruptedBackup, ObjectNotFound
from backstay.operations.findings import Check, Finding
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.snapshots.walk import directory_content
from backstay.operations.tiers.cold_packs import ColdPacks
from backstay.operations.verify.logs import WalChecks
from backstay.operations.verify.packs import Checked, PackChecks
from backstay.operations.wal.needs import needed_wal
from backstay.repository import reserve
from backstay.repository.contents import all_chunk_ids, split_ids
from backstay.repository.format import RESERVE, epoch_name, index_name, pack_name
from backstay.repository.index import PackInfo, read_segment
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.slots import SlotStore
from backstay.repository.snapshots import Manifest
from backstay.repository.stat_stream import StatCursor
from backstay.repository.trees import MEND_HINT, read_listing

_HOLD_HINT: Final = "the snapshot counts as held; `backstay hold set` or `hold clear` says anew what holds"
_EPOCH_HINT: Final = "put this object back from a copy: its packs need it"
_INDEX_HINT: Final = "run `backstay repair index`"
_REPLACED_HINT: Final = "compare the object with a copy: this is another than the one that was stored first"
_PACK_HINT: Final = "put it back from a copy; else run `backstay repair packs`, then `backstay repair snapshots`"
_GONE_HINT: Final = "put it back from a copy; else run `backstay repair index`, then `backstay repair snapshots`"
_RESERVE_HINT: Final = "no backup is affected; `backstay gc` sets it aside anew"
ALL_CHECKS: Final[tuple[Check, ...]] = ("integrity", "completeness", "size", "signature")


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to verify. `read_data` is the part of all packs to read, 0 to 1; `min_bytes` applies to each snapshot.

    `reserve` says that room for a full disk was set aside in this repository, as the command line does.
    """

    checks: tuple[Check, ...] = ALL_CHECKS
    read_data: float = 0.0
    min_bytes: int | None = None
    rehearse: Path | None = None
    reserve: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check's outcome; `details` says in a line what was looked at."""

    check: Check
    ok: bool
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All outcomes; sizes in bytes. Packs and objects of WAL are counted each by themselves."""

    results: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    snapshots: int
    packs: int
    packs_read: int
    bytes_read: int
    wal_objects: int = 0
    wal_read: int = 0

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


def run_verify(
    repository: Repository,
    snapshots: Iterable[str] | None = None,
    options: VerifyOptions | None = None,
    *,
    events: EventSink = ignore,
) -> VerifyReport:
    """Check everything, or what the named snapshots need; problems are findings, not exceptions."""
    return _Verify(repository, options or VerifyOptions(), events).run(None if snapshots is None else set(snapshots))


@dataclass(slots=True)
class _Verify:
    repository: Repository
    options: VerifyOptions
    events: EventSink
    findings: list[Finding] = field(default_factory=list)
    details: dict[Check, list[str]] = field(default_factory=dict)
    packs_read: int = 0
    bytes_read: int = 0
    wal: WalChecks = field(init=False)

    def __post_init__(self) -> None:
        self.wal = WalChecks(self.repository, self._find, self.events)

    def run(self, wanted: set[str] | None) -> VerifyReport:
        self._check("signature", self._keys)
        manifests = self._manifests(wanted)
        packs = self._packs()
        if wanted is None and self.options.read_data > 0:
            self._read_and_walk(manifests, packs)
        else:
            used = self._completeness(manifests, self.events)
            needed = packs if wanted is None else {n: p for n, p in packs.items() if n in used}
            self._integrity(needed)
        self._wal(manifests, everything=wanted is None)
        if "size" in self.options.checks and self.options.min_bytes is not None:
            self._sizes(manifests, self.options.min_bytes)
        if self.options.rehearse is not None:
            self._rehearse(manifests, self.options.rehearse)
        self.events(Finished(operation="verify"))
        return VerifyReport(
            results=self._results(),
            findings=tuple(self.findings),
            snapshots=len(manifests),
            packs=len(packs),
            packs_read=self.packs_read,
            bytes_read=self.bytes_read,
            wal_objects=self.wal.objects,
            wal_read=self.wal.read,
        )

    # -- plumbing

    def _find(self, check: Check, subject: str, error: BackstayError | str, hint: str = "") -> None:
        told = error.hint if isinstance(error, BackstayError) and not hint else hint
        self.findings.append(Finding(check=check, severity="error", subject=subject, message=str(error), hint=told))

    def _check(self, check: Check, work: Callable[[], str]) -> None:
        """Run one step of a check, if that was asked for."""
        if check in self.options.checks or check == "rehearsal":
            self.details.setdefault(check, []).append(work())

    def _results(self) -> tuple[CheckResult, ...]:
        """One result per check; it is fine if it found no error."""
        failed = {finding.check for finding in self.findings if finding.severity == "error"}
        return tuple(
            CheckResult(check=check, ok=check not in failed, details=", ".join(details))
            for check, details in self.details.items()
        )

    def _guarded(self, check: Check, subject: str, work: Callable[[], None], hint: str) -> None:
        try:
            work()
        except ObjectNotFound as error:
            self._find(check, subject, f"{error.name} is missing", hint)
        except CorruptedBackup as error:
            self._find(check, subject, error, hint)

    # -- keys, slots, signatures

    def _keys(self) -> str:
        slots = 0
        for name, slot in SlotStore.read_all(self.repository.backend):
            slots += 1
            if isinstance(slot, CorruptedBackup):
                self._find("signature", name, slot, "remove the slot and add a new one: `backstay key`")
        for number, error in self.repository.keyring.damaged.items():
            self._find("signature", epoch_name(number), error, _EPOCH_HINT)
        for name in self.repository.keyring.foreign:
            self._find("signature", name, "a foreign object lies among the key epochs", "find out what put it there")
        epochs = self.repository.keyring.epochs
        for epoch in epochs:
            check = partial(self.repository.keyring.check, epoch.number)
            self._guarded("signature", epoch_name(epoch.number), check, _EPOCH_HINT)
        return f"{plural(slots, 'key slot')}, {plural(len(epochs), 'epoch')}"

    def _manifests(self, wanted: set[str] | None) -> list[Manifest]:
        store = self.repository.snapshots
        live: list[Manifest] = []

        def read() -> str:
            live.extend(store.live(on_damage=lambda name, error: self._find("signature", name, error)))
            store.dropped(on_damage=lambda name, error: self._find("signature", name, error))
            store.holds.held(on_damage=lambda name, error: self._find("signature", name, error, _HOLD_HINT))
            store.graph_deletions.marked(on_damage=lambda name, error: self._find("signature", name, error))
            self._attestations()
            self._chain(live)
            if live:
                for digest in self.repository.slots.lost(live[-1].slots):
                    self._find("signature", f"keys/slots/{digest.hex()}", "this key slot is gone without a record")
            return f"{plural(len(live), 'snapshot')}, with signatures and chains"

        self._check("signature", read)
        if "signature" not in self.options.checks:
            live = store.live()
        if not live:
            self.findings.append(
                Finding(check="completeness", severity="warning", subject="snapshots", message="there is no snapshot")
            )
        return live if wanted is None else [manifest for manifest in live if manifest.id in wanted]

    def _attestations(self) -> None:
        """Each is whole, and speaks of a snapshot as it is stored; those of dropped ones wait for a collection."""
        for name, error in self.repository.attestations.problems():
            ulid = name.split("/")[1]
            if not (is_ulid(ulid) and self.repository.snapshots.dropped([ulid])):
                self._find("signature", name, error)

    def _chain(self, live: list[Manifest]) -> None:
        """Each snapshot names the one before it, with its digest: none can vanish or change unnoticed."""
        store = self.repository.snapshots
        taken = set(store.taken())
        dropped = store.dropped(m.previous for m in live if m.previous is not None)
        for manifest in live:
            if manifest.previous is None or manifest.previous in dropped:
                continue
            if manifest.previous not in taken:
                self._find(
                    "signature",
                    f"snapshots/{manifest.previous}",
                    "this snapshot is gone, and no record says that it was deleted",
                    "restore the object from a copy, or accept the loss with `backstay repair snapshots`",
                )
                continue
            self._guarded("signature", manifest.previous, partial(self._link, manifest), _REPLACED_HINT)

    def _link(self, manifest: Manifest) -> None:
        assert manifest.previous is not None
        if self.repository.snapshots.digest(manifest.previous) != manifest.previous_digest:
            raise CorruptedBackup(
                f"snapshots/{manifest.previous} is not the one that {manifest.id} followed", cause="its digest differs"
            )

    # -- completeness

    def _packs(self) -> dict[int, PackInfo]:
        """Every pack that the index names, after a look at which objects exist."""
        packs: dict[int, PackInfo] = {}

        def look() -> str:
            for name in self.repository.collections.foreign:
                self._find("integrity", name, "a foreign object lies in the repository")
            for name, error in self.repository.index.damaged:
                self._find("integrity", name, error, _INDEX_HINT)
            for digest in self.repository.index.segments():
                self._guarded("integrity", index_name(digest), partial(self._segment, digest), _INDEX_HINT)
            packs.update(self.repository.index.packs())
            self._existence(packs)
            self._cold_tier(packs)
            if self.options.reserve:
                self._guarded("integrity", RESERVE, partial(reserve.check, self.repository.backend), _RESERVE_HINT)
            segments = self.repository.index.segments()
            return f"{plural(len(segments), 'index segment')}, {plural(len(packs), 'pack')}"

        self._check("integrity", look)
        return packs or dict(self.repository.index.packs())

    def _segment(self, digest: bytes) -> None:
        read_segment(self.repository.backend, self.repository.keyring, digest)

    def _existence(self, packs: dict[int, PackInfo]) -> None:
        sizes = {}
        for prefix in ("packs/", "meta/"):
            for info in self.repository.backend.list(prefix):
                if not is_digest(info.name.rpartition("/")[2]):
                    self._find("integrity", info.name, "a foreign object lies in the repository")
                sizes[info.name] = info.size
        for pack in packs.values():
            name = pack_name(pack.kind, pack.digest)
            if name not in sizes:
                self._find("integrity", name, "this pack is missing", _GONE_HINT)
            elif sizes[name] != pack.size:
                self._find("integrity", name, f"this pack has {sizes[name]} bytes, not {pack.size}", _PACK_HINT)

    def _read_and_walk(self, manifests: list[Manifest], packs: dict[int, PackInfo]) -> None:
        """Read packs, which is work for the processors, while one thread walks the listings."""
        with Workers(1, "packs") as background:
            reading = background.submit(self._integrity, packs)
            self._completeness(manifests, ignore)
            reading.result()

    def _completeness(self, manifests: list[Manifest], events: EventSink) -> set[int]:
        """Walk every listing; each chunk must have a place. The packs that are needed are returned."""
        used: set[int] = set()
        seen: set[bytes] = set()

        def look() -> str:
            events(Started(operation="check snapshots", total_files=sum(m.stats.files for m in manifests)))
            files = 0
            for manifest in manifests:
                for count in self._walk(manifest, used, seen):
                    files += count
                    events(Progress(files=files, bytes=0, current=manifest.id))
            return f"{plural(len(manifests), 'snapshot')}, {plural(files, 'file')}"

        self._check("completeness", look)
        if "integrity" not in self.options.checks:  # else it has told
            self._need_packs(used)
        return used

    def _need_packs(self, used: set[int]) -> None:
        """A chunk that has a place is not there yet: its pack must be."""
        sizes = {
            info.name: info.size for prefix in ("packs/", "meta/") for info in self.repository.backend.list(prefix)
        }
        for number in sorted(used):
            pack = self.repository.index.pack(number)
            name = pack_name(pack.kind, pack.digest)
            if sizes.get(name) != pack.size:
                self._find("completeness", name, "snapshots need this pack, which is missing or cut", _GONE_HINT)

    def _walk(self, manifest: Manifest, used: set[int], seen: set[bytes]) -> Iterator[int]:
        subject = f"snapshot {manifest.id}"
        try:
            self._need(manifest.stat_stream, used)
            self._read_stat_stream(manifest)
            yield from self._walk_listing(manifest.root, used, seen, subject)
        except BackstayError as error:
            if isinstance(error, (CorruptedBackup, ObjectNotFound)):
                self._find("completeness", subject, error, MEND_HINT)
            else:
                raise

    def _read_stat_stream(self, manifest: Manifest) -> None:
        cursor = StatCursor(manifest.stat_stream, self.repository.reader)
        if cursor.enter(b"") is None:
            raise CorruptedBackup("the stat stream does not begin at the root")
        if cursor.leave().content != manifest.root:
            raise CorruptedBackup("the stat stream ends at another root than the manifest names")

    def _walk_listing(self, root: Content, used: set[int], seen: set[bytes], subject: str) -> Iterator[int]:
        """Every listing not seen in an earlier snapshot; the number of files in each."""
        waiting = [(b"/", root)]
        while waiting:
            path, content = waiting.pop()
            key = blake2b(content.ids, digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            self._need(content, used)
            files = 0
            for node in read_listing(content, self.repository.reader):
                below = path.rstrip(b"/") + b"/" + node.name
                if node.is_dir:
                    waiting.append((below, directory_content(node, below)))
                else:
                    files += 1
                    self._need_file(node, below, used, subject)
            yield files

    def _need_file(self, node: Node, path: bytes, used: set[int], subject: str) -> None:
        if node.content is None:
            return
        try:
            self._need(node.content, used)
        except (CorruptedBackup, ObjectNotFound) as error:
            self._find("completeness", f"{subject}: {printable(path)}", error, MEND_HINT)

    def _need(self, content: Content, used: set[int]) -> None:
        if content.depth == 0:  # nearly all of them
            chunks: Iterable[bytes] = split_ids(content.ids)
        else:
            chunks = all_chunk_ids(content, self.repository.reader)
        for chunk in chunks:
            used.add(self.repository.reader.place(chunk).pack)

    # -- the cold tier

    def _cold_tier(self, packs: dict[int, PackInfo]) -> None:
        """The store of the cold tier holds what is noted about it; or it is away, and nothing is known."""
        tiered = self.repository.tiered
        if tiered is None:
            return
        noted = tiered.only_cold()
        if not tiered.cold.is_attached():
            size = format_size(sum(info.size for info in noted.values()))
            self._warn(
                tiered.cold.address,
                f"this cold tier is not attached: {len(noted)} packs with {size} were not looked at",
                "attach it and verify again",
            )
            return
        there = tiered.really_cold()
        named = {pack_name(pack.kind, pack.digest) for pack in packs.values()}
        for name, info in noted.items():
            if name not in named:
                continue
            if name not in there:
                self._find("integrity", name, "this pack is missing in the cold tier", _GONE_HINT)
            elif there[name].size != info.size:
                self._find("integrity", name, f"this pack has {there[name].size} bytes, not {info.size}", _PACK_HINT)

    def _readable(self, packs: dict[int, PackInfo]) -> dict[int, PackInfo]:
        """Those that can be read now; frozen ones are told. Raises TierNotAttached."""
        cold = ColdPacks(self.repository)
        for number in packs:
            cold.need_pack(number)
        need = cold.needed()
        if need is None or cold.place is None:
            return packs
        cold.place.require_attached(need)
        frozen = {*need.frozen, *need.thawing}
        if frozen:
            self._warn(
                need.address,
                f"{len(frozen)} packs with {format_size(need.bytes_to_wait_for)} are frozen and were not read",
                "a restore thaws what it needs; `backstay tier recall` brings back all of a cold tier",
            )
        return {number: info for number, info in packs.items() if pack_name(info.kind, info.digest) not in frozen}

    def _warn(self, subject: str, message: str, hint: str) -> None:
        self.findings.append(
            Finding(check="integrity", severity="warning", subject=subject, message=message, hint=hint)
        )

    # -- size

    def _sizes(self, manifests: list[Manifest], least: int) -> None:
        def look() -> str:
            for manifest in manifests:
                if manifest.stats.bytes < least:
                    self._find(
                        "size",
                        f"snapshot {manifest.id}",
                        f"it holds {plural(manifest.stats.bytes, 'byte')}, not {format_count(least)}",
                    )
            return f"{plural(len(manifests), 'snapshot')}, at least {plural(least, 'byte')} each"

        self._check("size", look)

    # -- integrity of packs

    def _integrity(self, packs: dict[int, PackInfo]) -> None:
        chosen = self._readable(self._sample(packs))
        if not chosen:
            return

        def look() -> str:
            total = sum(pack.size for pack in chosen.values())
            self.events(Started(operation="read packs", total_files=len(chosen), total_bytes=total))
            checks = PackChecks(self.repository, warn=lambda message: self.events(Warned(message=message)))
            for checked in checks.run(list(chosen.values())):
                self._note_pack(checked)
            return f"{format_count(len(chosen))} of {plural(len(packs), 'pack')} read, decrypted and decoded"

        self._check("integrity", look)

    def _sample(self, packs: dict[_Key, _Value]) -> dict[_Key, _Value]:
        """What to read of packs or other objects: all, or a part of them chosen anew each time."""
        if self.options.read_data >= 1:
            return packs
        count = round(len(packs) * self.options.read_data)
        if self.options.read_data > 0:
            count = max(1, count)
        ranked = sorted((self.repository.environment.random(8), at) for at in range(len(packs)))
        chosen = {at for _, at in ranked[:count]}
        return {key: value for at, (key, value) in enumerate(packs.items()) if at in chosen}

    def _note_pack(self, checked: Checked) -> None:
        if isinstance(checked.error, ObjectNotFound):
            self._find("integrity", checked.expected.name, f"{checked.error.name} is missing", _PACK_HINT)
        elif checked.error is not None:
            self._find("integrity", checked.expected.name, checked.error, _PACK_HINT)
        self.packs_read += 1
        self.bytes_read += checked.expected.size
        self.events(Progress(files=self.packs_read, bytes=self.bytes_read))

    # -- WAL

    def _wal(self, manifests: list[Manifest], *, everything: bool) -> None:
        """That of all clusters, or only what makes the base backups among the snapshots consistent."""
        checks = self.wal
        bases = checks.look(manifests)
        if bases:
            self._check("completeness", checks.completeness)
        elif not everything:
            return
        if everything and (logs := checks.binary_logs()):
            self._check("completeness", lambda: checks.whole_logs(logs))
        found = self.repository.wal.objects()
        if not everything:
            needed = needed_wal(self.repository, checks.readable)
            found = {name: size for name, size in found.items() if name in needed}
        if found:
            self._check("integrity", lambda: checks.integrity(found, self._sample))

    # -- rehearsal

    def _rehearse(self, manifests: list[Manifest], place: Path) -> None:
        """Really restore, into an empty directory below `place`, and compare every file's SHA-256."""

        def look() -> str:
            files = 0
            place.mkdir(parents=True, exist_ok=True)
            for manifest in manifests:
                with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=place) as scratch:
                    result = run_restore(
                        self.repository, manifest, Path(scratch), RestoreOptions(verify=True), events=self.events
                    )
                files += result.verified
                for item in result.errors:
                    self._find("rehearsal", f"snapshot {manifest.id}: {item.path}", item.message)
            return f"{plural(files, 'file')} restored and compared"

        self._check("rehearsal", look)
