"""Objects in the cloud: S3 and what speaks like it, Azure Blob Storage, Google Cloud Storage."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

import obstore

from backstay.core.clock import Clock, SystemClock, ns_from_datetime
from backstay.errors import (
    BackstayError,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.archive import Archive
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.cloud_address import CONTAINER, CloudAddress, parse_address
from backstay.storage.cloud_calls import heard
from backstay.storage.cloud_clients import USUAL, CloudClients, CloudStore
from backstay.storage.cloud_errors import (
    BETWEEN,
    FAILURES,
    Answer,
    failure,
    gave_whole,
    lacks_locks,
    read_answer,
    says_exists,
)
from backstay.storage.cloud_listing import PAGE, CloudListing
from backstay.storage.names import check_name, check_prefix, check_range
from backstay.storage.patience import Patience
from backstay.storage.retention import Retention, must_stay

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta, PutResult

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method

_PROOF_S: Final = 60.0  # for so long a bucket that was seen counts as being there
ARCHIVE_CLASSES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})  # of S3; GLACIER_IR gives objects at once
_FREEZABLE: Final = "packs/"  # a repository whose records are frozen could not be opened
_SWEPT: Final = ("packs/", "meta/")  # deleted by the thousand, by a collection that looks at a listing afterwards
_LARGEST: Final = (1 << 63) - 1  # bytes; ends of ranges above it are no number to obstore
_SAID_SO: Final = "the answer said so"
_MD5: Final = re.compile(r'"?([0-9a-f]{32})"?\Z')


class ObjectStorage(StorageBackend):
    """A bucket or container, or what lies in it below a prefix.

    Objects are stored in one request each, with a condition that lets the store decide races. Nothing is tried
    twice here. That an object is absent is believed when the store says so in its own words and the bucket is seen
    to be there.
    """

    parallel = 4

    def __init__(
        self,
        address: CloudAddress,
        environ: Mapping[str, str],
        *,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._address, self._environ = address, environ
        self._archive: Archive | None = None
        self._retention: Retention | None = None
        self._clock = clock or SystemClock()
        self._clients = CloudClients(address, environ, clock=self._clock, patience=patience or Patience())
        self._root = f"{address.prefix}/" if address.prefix else ""
        storage_class = address.get("storage-class")
        self._attributes: Attributes | None = {"Storage-Class": storage_class} if storage_class else None
        self._freezes = (storage_class or "").upper() in ARCHIVE_CLASSES and address.scheme == "s3"
        self._etags = _Etags()
        self._seen: float | None = None  # when the bucket was last known to be there
        self._witness: str | None = None  # an object that was seen: no listing of everything may be without it

    @property
    def url(self) -> str:
        return str(self._address)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        body = _flat(data)
        self._see_bucket()
        try:
            answer = heard(lambda: self._put(name, body, overwrite=overwrite))
        except FAILURES as error:
            if says_exists(error):
                raise ObjectExists(name) from None
            if must_stay(name) and self._address.get("retain-days") and lacks_locks(error):
                raise self._no_locks(error, f"cannot store {name}") from error
            raise self._failure(error, f"cannot store {name}") from error
        if not self._etags.prove(answer["e_tag"], body):
            self._require_arrived(name, answer, len(body))
        self._witness = self._witness or name

    def _put(self, name: str, body: memoryview, *, overwrite: bool) -> PutResult:
        return obstore.put(
            self._clients.for_storing(len(body), lock=must_stay(name), checksum=self._clients.checksum_of(body)),
            self._root + name,
            body,
            attributes=self._attributes if not self._freezes or name.startswith(_FREEZABLE) else None,
            mode="overwrite" if overwrite else "create",
            use_multipart=False,
        )

    def _require_arrived(self, name: str, answer: PutResult, size: int) -> None:
        """Look at what was stored, where the answer does not prove it: a web page has a good status and a tag as well.

        Only a store names versions. Nothing is deleted as damaged that another program may have stored.
        """
        if answer["version"] is None or self._etags.are_sums:
            try:
                meta = self._head(name)
            except ObjectNotFound:
                raise _not_stored(name, "it is not there") from None
            if meta["size"] != size or _bare(meta["e_tag"]) != _bare(answer["e_tag"]):
                raise _not_stored(name, "under its name is something else")
        if self._etags.show_damage(answer["e_tag"]):
            self.delete(name)  # nobody was told that it is there, and nobody could use it
            raise StorageUnavailable(f"{name} was damaged on its way", cause="the store received other bytes")

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        if length == 0:
            _check_end(name, start, self.stat(name).size)
            return b""
        if length is None:
            return self._read_to_end(name, start)
        end = start + length
        if end > _LARGEST:
            _check_end(name, end, self.stat(name).size)
        return self._read(name, self._clients.for_reading(length), {"range": (start, end)}, length)

    def delete(self, name: str) -> None:
        check_name(name)
        if self._witness == name:
            self._witness = None
        self._see_bucket()
        try:
            heard(lambda: obstore.delete(self._clients.for_reading(), self._root + name))
        except FAILURES as error:
            if not isinstance(error, FileNotFoundError) or self.exists(name):
                raise self._failure(error, f"cannot delete {name}") from error
            return
        if self._address.scheme != "az" and not name.startswith(_SWEPT):  # Azure's answer names what it deleted
            self._require_gone(name)

    def _require_gone(self, name: str) -> None:
        """Of the answer to a delete only the status is known, which a web page may have."""
        try:
            self._ask_head(name)
        except FileNotFoundError:
            return
        except FAILURES as error:
            raise self._failure(error, f"cannot tell whether {name} was deleted") from error
        raise StorageUnavailable(f"{name} was not deleted", cause=f"it is still there, although {_SAID_SO}")

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        return self._list(self._root + prefix)

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        return self._info(self._head(name))

    def _head(self, name: str) -> ObjectMeta:
        try:
            return self._ask_head(name)
        except FAILURES as error:
            if read_answer(error).status:
                self._ask_again(name)
            raise self._failure(error, f"cannot examine {name}") from error

    def _ask_head(self, name: str) -> ObjectMeta:
        answer = heard(lambda: obstore.get(self._clients.for_reading(), self._root + name, options={"head": True}))
        self._check_type(f"cannot examine {name}", answer.attributes)
        return answer.meta

    def archive(self) -> Archive | None:
        """How data packs are thawed, where they are stored in an archive class of S3. Raises InvalidRequest."""
        if not self._freezes:
            return None
        if self._archive is None:
            from backstay.storage.s3_archive import S3Archive

            self._archive = S3Archive(self._address, self._environ)
        return self._archive

    def retention(self) -> Retention | None:
        """How locks are extended, where the address says for how long objects are locked. Raises InvalidRequest."""
        if self._address.get("retain-days") is None:
            return None
        if self._retention is None:
            self._retention = self._make_retention()
        return self._retention

    def _make_retention(self) -> Retention:
        if self._address.scheme == "gs":
            from backstay.storage.google_retention import GoogleRetention

            return GoogleRetention(self._address, self._environ, self._clock)
        from backstay.storage.s3_retention import S3Retention

        return S3Retention(self._address, self._environ)

    def refuses_damage(self, name: str) -> bool:
        """Whether the store refuses a body that has another checksum than its header says."""
        checksum = self._clients.checksum_of(b"what was sent", always=True)
        if not checksum:
            return False
        self._see_bucket()
        try:
            client = self._clients.for_storing(0, checksum=checksum)
            heard(lambda: obstore.put(client, self._root + name, b"what arrived"))
        except FAILURES as error:
            if read_answer(error).status != 400:
                raise self._failure(error, f"cannot store {name}") from error
            self._etags.checked_by_store = True
            return True
        self.delete(name)
        return False

    # --- reading ---

    def _read_to_end(self, name: str, start: int) -> bytes:
        if start == 0:
            return self._read(name, self._clients.for_reading(USUAL), {}, None)
        size = self.stat(name).size
        _check_end(name, start, size)
        if start == size:  # a range without bytes cannot be asked for
            return b""
        return self._read(name, self._clients.for_reading(size - start), {"range": (start, size)}, size - start)

    def _read(
        self, name: str, client: CloudStore, options: GetOptions, length: int | None, *, doubted: bool = False
    ) -> bytes:
        """The bytes of one answer, exactly `length` of them, or as many as the store says the object has.

        That a store knows no ranges is believed when it shows that twice (`doubted`), and no web page comes between.
        """
        try:
            answer = heard(lambda: obstore.get(client, self._root + name, options=options))
            self._check_type(f"cannot read {name}", answer.attributes)
            size = answer.meta["size"] if length is None else length
            if length is None and size > USUAL:  # this client would give up too early
                return self._read(name, self._clients.for_reading(size), {"range": (0, size)}, size)
            data = heard(answer.bytes)
        except FileNotFoundError as error:
            self._prove_absent(error, name)
            raise ObjectNotFound(name) from None
        except FAILURES as error:
            if doubted or not gave_whole(error):
                raise self._unreadable(error, name) from error
            self._refuse_page(name)
            return self._read(name, client, options, length, doubted=True)
        if len(data) != size:
            raise StorageUnavailable(
                f"{name} has other bytes than were asked for", cause=f"{len(data)} bytes came instead of {size}"
            )
        self._witness = self._witness or name
        return bytes(data)

    def _refuse_page(self, name: str) -> None:
        """Raises StorageUnavailable when a page comes instead of an object: its status is that of a whole one."""
        with self._told(f"cannot read {name}"):
            attributes = heard(lambda: obstore.get(self._clients.for_reading(), self._root + name)).attributes
        self._check_type(f"cannot read {name}", attributes)

    @staticmethod
    def _check_type(title: str, attributes: Attributes) -> None:
        """Refuse a page for people: a portal or a proxy answered, not the store."""
        if attributes.get("Content-Type", "").startswith("text/html"):
            raise StorageUnavailable(title, cause="a web page came instead of the object", hint=BETWEEN)

    def _unreadable(self, error: BaseException, name: str) -> BackstayError:
        if read_answer(error).status == 416:
            return StorageUnavailable(f"{name} is too short", cause="the store says that the range lies behind its end")
        return self._failure(error, f"cannot read {name}")

    # --- listing ---

    def _list(self, prefix: str) -> _Infos:
        """Entries as they come. obstore's prefixes are whole directories; ours end anywhere."""
        entries = self._entries(prefix.rpartition("/")[0])
        while True:
            with self._told(f"cannot list {self.url}"):
                meta = next(entries, None)
            if meta is None:
                return
            if meta["path"].startswith(prefix):
                yield self._info(meta)

    def _entries(self, directory: str) -> Iterator[ObjectMeta]:
        listing = CloudListing(
            self._clients.for_reading(PAGE << 10),
            self._address.prefix,
            is_there=lambda key: self.exists(key[len(self._root) :]),
            witness=lambda: None if self._witness is None else self._root + self._witness,
        )
        empty = True
        for meta in listing.entries(directory):
            empty = False
            yield meta
        if empty:  # some stores list a bucket that is not there
            self._prove_bucket()

    def _info(self, meta: ObjectMeta) -> ObjectInfo:
        return ObjectInfo(
            name=meta["path"][len(self._root) :],
            size=meta["size"],
            modified_ns=ns_from_datetime(meta["last_modified"]),
        )

    # --- proof of absence ---

    def _ask_again(self, name: str) -> NoReturn:
        """Raise what is wrong after a HEAD: the answers to it have no body that would say what, nor what is missing."""
        self._read(name, self._clients.for_reading(), {"range": (0, 1)}, 1)
        raise StorageUnavailable(f"cannot examine {name}", cause="the store says that it is there and that it is not")

    def _prove_absent(self, error: FileNotFoundError, name: str) -> None:
        """Return if the store itself said that the object is not there, in a bucket that is."""
        if not read_answer(error).says_no_key:
            raise self._failure(error, f"cannot tell whether {name} is there") from error
        self._prove_bucket()

    def _see_bucket(self) -> None:
        """Before the first write: some stores make a bucket that is not there, also one with a misspelt name."""
        if self._seen is None:
            self._prove_bucket()

    def _prove_bucket(self) -> None:
        """Return if the bucket is there now, or was a short while ago. Raises StorageMissing."""
        now = self._clock.monotonic()
        if self._seen is not None and now - self._seen < _PROOF_S:
            return
        try:
            if self._address.scheme == "s3":
                heard(lambda: obstore.head(self._clients.for_reading(), ""))
            else:  # these never list a container that is not there
                self._peek()
        except FileNotFoundError as error:
            raise self._bucket_missing(error) from error
        except FAILURES as error:
            # HEAD of a bucket is answered without what HEAD of an object has: obstore misses it, we do not.
            if "Header missing from response" not in str(error):
                raise self._failure(error, f"cannot tell whether {self._address.bucket} is there") from error
        self._seen = now

    def _bucket_missing(self, error: FileNotFoundError) -> BackstayError:
        """What to say after a HEAD of the bucket that found nothing, which anybody may answer: ask for a listing."""
        try:
            self._peek()
        except FAILURES as again:
            return self._failure(again, f"cannot tell whether {self._address.bucket} is there")
        return self._missing(read_answer(error))

    def _peek(self) -> None:
        """Begin a listing that has few entries or none."""
        entries = iter(obstore.list(self._clients.for_reading(), f"{self._root}probe", chunk_size=1))
        heard(lambda: next(entries, None))

    # --- failures ---

    @contextmanager
    def _told(self, title: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise self._failure(error, title) from error

    def _failure(self, error: BaseException, title: str) -> BackstayError:
        answer = read_answer(error)
        return self._missing(answer) if answer.says_no_bucket else failure(error, title)

    def _no_locks(self, error: BaseException, title: str) -> StorageRefused:
        made_with = "object retention" if self._address.scheme == "gs" else "Object Lock"
        return StorageRefused(
            title,
            cause=f"{read_answer(error)} to a lock: the bucket {self._address.bucket} was made without {made_with}",
            hint=f"make one with {made_with}, or leave retain-days out of the address",
        )

    def _missing(self, answer: Answer) -> StorageMissing:
        what = CONTAINER[self._address.scheme]
        return StorageMissing(
            f"the {what} {self._address.bucket} is not there",
            cause=str(answer),
            hint=f"create it, or check the {what}'s name and the endpoint",
        )


class _Etags:
    """Compares what a store says it has received, where its entity tags are MD5 sums.

    Whether they are depends on the store and on how it encrypts, so the first ones are watched. What arrives in a store
    that has proved to check the SHA-256 sums itself is not damaged, whatever its tags say.
    """

    def __init__(self) -> None:
        self.checked_by_store = False
        self._are_md5: bool | None = None
        self._lock = threading.Lock()

    @property
    def are_sums(self) -> bool:
        """Whether tags have proved to be sums."""
        return self._are_md5 is True

    def prove(self, tag: str | None, body: memoryview) -> bool:
        """Whether a tag says that this very body has arrived: nobody else knows its sum."""
        match = _MD5.match(tag or "")
        if match is None or self._are_md5 is False:
            return False
        same = hashlib.md5(body, usedforsecurity=False).hexdigest() == match[1]
        if same:
            with self._lock:
                self._are_md5 = True
        return same

    def show_damage(self, tag: str | None) -> bool:
        """Whether a body was damaged on its way that the store has under this tag, which is not its sum."""
        with self._lock:
            if self._are_md5 is None and _MD5.match(tag or ""):
                self._are_md5 = False
            return self._are_md5 is True and not self.checked_by_store


def _bare(tag: str | None) -> str:
    """A tag as a proxy leaves it that compresses nothing: without the mark of a weak one, and without quotes."""
    return (tag or "").removeprefix("W/").strip('"')


def _not_stored(name: str, cause: str) -> StorageUnavailable:
    return StorageUnavailable(f"{name} was not stored", cause=f"{cause}, although {_SAID_SO}", hint=BETWEEN)


def _flat(data: Buffer) -> memoryview:
    """The same bytes as one run of unsigned bytes, copied only if they are scattered."""
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _check_end(name: str, end: int, size: int) -> None:
    if end > size:
        raise StorageUnavailable(f"{name} is too short", cause=f"asked for bytes up to {end}, but it has only {size}")


def open_s3(url: str) -> ObjectStorage:
    """What `s3://BUCKET/PREFIX` means."""
    return ObjectStorage(parse_address(url), os.environ)


def open_az(url: str) -> ObjectStorage:
    """What `az://CONTAINER/PREFIX` means."""
    return ObjectStorage(parse_address(url), os.environ)


def open_gs(url: str) -> ObjectStorage:
    """What `gs://BUCKET/PREFIX` means."""
    return ObjectStorage(parse_address(url), os.environ)
