"""Every remote engine over every fault of the way to it: the right bytes, exactly one object, or an error with a name.

The engines talk to servers, through a proxy that breaks what it carries, and are used as the program uses them: below
its retries. What makes no sense is in `SENSELESS`, with the reason; what is not there is tried.
"""

from __future__ import annotations

import ftplib
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.backend import StorageBackend
from backstay.storage.patience import Patience
from backstay.storage.retrying import Retrying, RetryPolicy
from tests.storage.fault_proxy import (
    BlackHole,
    CutDownload,
    Drip,
    Fault,
    FaultProxy,
    LoseAnswer,
    LoseReply,
    Refuse,
    ResetDownload,
    ResetUpload,
)
from tests.storage.remote import engines
from tests.storage.remote.conftest import Keys
from tests.storage.remote.engines import Engine

DATA: Final = random.Random(3).randbytes(300_000)
STEP: Final = 64 << 10
SNAPSHOT: Final = "snapshots/01arz3ndektsv4rrffq69g5fav"  # a name that does not say what its object holds
FENCE: Final = b"another writer was faster"
CALM: Final = Patience(connect=5, silence=3)
SHORT: Final = Patience(connect=0.8, silence=0.4, slowest=1 << 30)
NAMES: Final = ("s3", "az", "gs", "sftp", "wsgidav", "rclone", "ftp", "ipfs")

ANSWERS: Final[dict[str, Fault]] = {
    "500": Refuse(status=500),
    "503": Refuse(status=503, retry_after=3),
    "429": Refuse(status=429, retry_after=3),
}
WAYS: Final[dict[str, Fault]] = {
    "black hole": BlackHole(seconds=0.05),
    "drip": Drip(step=32_768, pause=0.001),
    **ANSWERS,
}
STORING: Final[dict[str, Fault]] = {
    **{f"reset up at {at >> 10} KiB": ResetUpload(after=at) for at in range(0, len(DATA), STEP)},
    "no answer": ResetDownload(after=0),
    **WAYS,
}
READING: Final[dict[str, Fault]] = {
    **{f"reset down at {at >> 10} KiB": ResetDownload(after=at) for at in range(0, len(DATA), STEP)},
    **{f"cut at {at >> 10} KiB": CutDownload(after=at + 1) for at in range(0, len(DATA), STEP)},
    **WAYS,
}
LISTING: Final[dict[str, Fault]] = {
    "reset": ResetDownload(after=40),
    "cut": CutDownload(after=40),
    "cut late": CutDownload(after=700),
    **WAYS,
}
LASTING: Final[dict[str, Fault]] = {
    "reset up": ResetUpload(after=2 * STEP),
    "reset down": ResetDownload(after=2 * STEP),
    "cut": CutDownload(after=2 * STEP),
    "silence": BlackHole(seconds=60),
    "endless drip": Drip(step=16, pause=0.05),
    **ANSWERS,
}
SENSELESS: Final = {
    ("sftp", "500"): "SSH has no answers that a proxy could give",
    ("ftp", "500"): "not HTTP; what its server refuses is in test_ftp.py",
    ("ftp", "no answer"): "nothing comes back where an upload goes; see test_every_reply_may_be_lost",
    ("ftp", "cut late"): "a listing of one directory is shorter",
    ("ipfs", "credentials"): "the stub has none",
    ("sftp", "full"): "SSH has no answers that a proxy could give; the errors of a full disk are in test_sftp.py",
    ("ftp", "full"): "not HTTP; its replies are in test_what_ftp_servers_say_of_a_full_disk",
}

# What they ask for goes unheard: obstore does not tell the headers of a refusal. The growing pauses remain.
DEAF: Final = ("s3", "az", "gs")


def skips(name: str, fault: str) -> bool:
    return (name, "500" if fault in ANSWERS else fault) in SENSELESS


def combined(faults: dict[str, Fault]) -> list[object]:
    return [
        pytest.param(name, fault, id=f"{name}-{title}")
        for name in NAMES
        for title, fault in faults.items()
        if not skips(name, title)
    ]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Callable[[str], Engine]]:
    """Starts a server when the first test needs it."""
    running: dict[str, Engine] = {}
    place = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:

        def start(name: str) -> Engine:
            if name not in running:
                makers = {
                    "s3": engines.seaweedfs,
                    "az": engines.azurite,
                    "gs": engines.google,
                    "wsgidav": engines.wsgidav,
                    "rclone": engines.rclone_webdav,
                    "ftp": engines.ftp,
                    "ipfs": engines.ipfs,
                }
                made = engines.sftp(place, keys) if name == "sftp" else makers[name](place)
                running[name] = stack.enter_context(made)
            return running[name]

        yield start


@pytest.fixture
def engine(name: str, started: Callable[[str], Engine], home: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = started(name)
    for variable in (*made.environment, "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, made.environment.get(variable, ""))
        if variable not in made.environment:
            monkeypatch.delenv(variable)
    return made


@pytest.fixture
def proxies(engine: Engine) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    with engine.behind() as made:
        yield made


class Way:
    """One place on a server, reached through the proxies and, to see what is there, without them."""

    def __init__(self, engine: Engine, proxies: tuple[FaultProxy, FaultProxy]) -> None:
        self.engine = engine
        self.control, self.data = proxies
        self.place = secrets.token_hex(6)
        self.waits: list[float] = []
        self._stack = ExitStack()

    @cached_property
    def direct(self) -> StorageBackend:
        engine = self._open(self.engine.host, self.engine.port, CALM)
        return Retrying(engine, policy=RetryPolicy(first_s=0.01, deadline_s=10), clock=SystemClock())

    def through(self, *, deadline_s: float = 30, patience: Patience = CALM) -> Retrying:
        """As the program reaches it, but what is waited for between two tries is written down and nearly skipped."""
        engine = self._open("127.0.0.1", self.control.port, patience)
        policy = RetryPolicy(first_s=0.1, longest_s=0.1, deadline_s=deadline_s, slowest=1 << 40)
        return Retrying(engine, policy=policy, clock=SystemClock(), sleep=self._wait)

    def _open(self, host: str, port: int, patience: Patience) -> StorageBackend:
        return self._stack.enter_context(self.engine.open(host, port, self.place, patience, SystemClock()))

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        time.sleep(min(seconds, 0.02))  # a server needs a moment to see that its client has gone

    def close(self) -> None:
        self._stack.close()

    def strike(self, fault: Fault, count: int = 3) -> None:
        """The next connections or requests. Three, because the first may belong to a look at the bucket."""
        if self.engine.data_port is not None and isinstance(fault, BlackHole):
            count = min(count, 1)  # each is waited for by the server, which has an open connection for what is said
        self.data.add(fault, count=count)
        self.control.cut()  # what is open already would be spared

    def strike_control(self, fault: Fault) -> None:
        """Three times, as a transfer may fail first: the server has one port for them, and it may still be taken."""
        self.control.add(fault, count=3)
        self.control.cut()

    def was_struck(self, fault: Fault) -> bool:
        """Whether the fault did what it is for."""
        if isinstance(fault, (ResetUpload, ResetDownload, CutDownload)):
            return self.data.struck > 0
        return self.data.hits[type(fault).__name__] > 0

    def holds(self, name: str, data: bytes) -> None:
        """That, and nothing else, is on the server."""
        assert self.direct.retrieve(name) == data
        assert [(info.name, info.size) for info in self.direct.list()] == [(name, len(data))]


@pytest.fixture
def way(engine: Engine, proxies: tuple[FaultProxy, FaultProxy]) -> Iterator[Way]:
    made = Way(engine, proxies)
    yield made
    made.data.heal()
    made.control.heal()
    if engine.sftp is not None:
        engine.sftp.behaviour.done.clear()
    made.close()


def respected(way: Way, fault: Fault) -> bool:
    """Whether the pause was as long as the server asked for, if it did."""
    asked = fault.retry_after if isinstance(fault, Refuse) else None
    return asked is None or way.engine.name in DEAF or any(pause >= asked for pause in way.waits)


@pytest.mark.parametrize(("name", "fault"), combined(STORING))
def test_a_store_gets_through(way: Way, fault: Fault) -> None:
    backend = way.through()
    way.strike(fault)
    backend.store(SNAPSHOT, DATA)
    assert way.was_struck(fault)
    assert respected(way, fault)
    way.data.heal()
    way.holds(SNAPSHOT, DATA)


@pytest.mark.parametrize(("name", "fault"), combined(READING))
def test_whole_objects_come_through(way: Way, fault: Fault) -> None:
    way.direct.store(SNAPSHOT, DATA)
    backend = way.through()
    way.strike(fault)
    assert backend.retrieve(SNAPSHOT) == DATA
    assert way.was_struck(fault)
    assert respected(way, fault)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_objects_come_through(way: Way) -> None:
    way.direct.store(SNAPSHOT, DATA)
    backend = way.through()
    for fault in (ResetDownload(after=STEP), CutDownload(after=STEP), ResetDownload(after=0)):
        way.strike(fault)
        assert backend.retrieve(SNAPSHOT, start=1000, length=200_000) == DATA[1000:201_000]
        way.data.heal()
    assert way.data.struck


@pytest.mark.parametrize(("name", "fault"), combined(LISTING))
def test_a_listing_is_whole(way: Way, fault: Fault) -> None:
    names = {f"packs/0{number}/{number:064}" for number in range(6)}
    for each in names:
        way.direct.store(each, b"x")
    backend = way.through()
    way.strike(fault)
    found = [info.name for info in backend.list()]
    assert way.was_struck(fault)
    assert (len(found), {*found}) == (len(names), names)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_lost_a_race_stays_lost(way: Way) -> None:
    way.direct.store(SNAPSHOT, FENCE)
    backend = way.through()
    for fault in (ResetUpload(after=STEP), BlackHole(seconds=0.02)):
        way.strike(fault)
        with pytest.raises(ObjectExists):
            backend.store(SNAPSHOT, DATA)
        assert way.was_struck(fault)
        way.data.heal()
        way.holds(SNAPSHOT, FENCE)


# --- lost acknowledgements ---


def make_directory(way: Way) -> None:
    """So that the answer which is lost is not a complaint that the directory is missing."""
    way.direct.store(SNAPSHOT, b"")
    way.direct.delete(SNAPSHOT)


def lose_acknowledgement(way: Way) -> Callable[[], int]:
    """Let the answer to what makes an object visible be lost once; the result counts how often it was."""
    if way.engine.sftp is not None:  # nobody but the server can tell what is inside of SSH
        lost: list[str] = []

        def cut(method: str) -> None:
            if not lost:
                lost.append(method)
                way.control.cut()

        way.engine.sftp.behaviour.done["link"] = cut
        return lambda: len(lost)
    if way.engine.publishes is None:
        way.strike_control(LoseReply(command=b"RNTO"))
        return lambda: way.control.struck
    way.control.match = way.engine.publishes
    way.control.add(LoseAnswer())
    way.control.cut()
    return lambda: way.control.hits["LoseAnswer"]


@pytest.mark.parametrize("name", NAMES)
def test_an_acknowledgement_that_is_lost_is_no_second_object(way: Way) -> None:
    backend = way.through()
    make_directory(way)
    lost = lose_acknowledgement(way)
    backend.store(SNAPSHOT, DATA)
    assert lost()
    way.holds(SNAPSHOT, DATA)
    with pytest.raises(ObjectExists):
        way.through().store(SNAPSHOT, DATA)


@pytest.mark.parametrize("name", NAMES)
def test_an_acknowledgement_that_is_lost_makes_nobody_else_s_object_ours(way: Way) -> None:
    backend = way.through(deadline_s=0)
    make_directory(way)
    lost = lose_acknowledgement(way)
    while not lost():
        with pytest.raises(StorageUnavailable):
            backend.store(SNAPSHOT, DATA)
    way.control.heal()
    way.holds(SNAPSHOT, DATA)
    way.direct.delete(SNAPSHOT)
    way.direct.store(SNAPSHOT, FENCE)
    with pytest.raises(ObjectExists):
        way.through().store(SNAPSHOT, DATA)
    way.holds(SNAPSHOT, FENCE)


@pytest.mark.parametrize("name", ["ftp"])
@pytest.mark.parametrize("command", [b"STOR", b"SIZE", b"RNFR", b"RNTO", b"MLST", b"PASV", b"USER", b"TYPE"])
def test_every_reply_may_be_lost(way: Way, command: bytes) -> None:
    way.strike_control(LoseReply(command=command))
    way.through().store(SNAPSHOT, DATA)
    assert way.control.struck >= 1
    way.holds(SNAPSHOT, DATA)


# --- what lasts ---


@pytest.mark.parametrize(("name", "fault"), combined(LASTING))
def test_what_lasts_longer_than_patience_is_told(way: Way, fault: Fault) -> None:
    way.direct.store("before", DATA)
    begun = time.monotonic()
    goes_on = isinstance(fault, (BlackHole, Drip))
    backend = way.through(deadline_s=0, patience=SHORT if goes_on else CALM)
    calls: list[Callable[[], object]] = [
        lambda: backend.store(SNAPSHOT, DATA),
        lambda: backend.retrieve("before"),
        lambda: [*backend.list()],
    ]
    way.strike(fault, count=100)
    outcomes: list[BackstayError | None] = []
    for call in calls:
        outcome = told(call)
        assert outcome is None or isinstance(outcome, StorageUnavailable), outcome
        outcomes.append(outcome)
    assert way.was_struck(fault) or any(outcomes)
    assert time.monotonic() - begun < 100, "it ends"
    way.data.heal()
    way.data.cut()
    left = {info.name: info.size for info in way.direct.list()}
    assert left in ({"before": len(DATA)}, {"before": len(DATA), SNAPSHOT: len(DATA)})
    assert all(way.direct.retrieve(each) == DATA for each in left)


def told(call: Callable[[], object]) -> BackstayError | None:
    """What went wrong; a false "absent" is caught by the caller, as that is no StorageUnavailable."""
    try:
        result = call()
    except BackstayError as error:
        return error
    assert not isinstance(result, bytes) or result == DATA
    return None


@pytest.mark.parametrize("name", [name for name in NAMES if not skips(name, "credentials")])
def test_wrong_credentials_are_refused_and_never_absence(way: Way) -> None:
    way.direct.store("a", b"x")
    assert way.engine.intrude is not None
    with way.engine.intrude("127.0.0.1", way.control.port, way.place, CALM, SystemClock()) as intruder:
        for call in every_call(intruder):
            with pytest.raises(StorageRefused):
                call()
    os.environ.update(way.engine.environment)
    way.holds("a", b"x")


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_is_not_there_is_missing(way: Way) -> None:
    absent = way.engine.absent or way.engine.open
    with absent("127.0.0.1", way.control.port, way.place, CALM, SystemClock()) as backend:
        for call in (lambda: [*backend.list()], lambda: backend.retrieve("a"), lambda: backend.stat("a")):
            with pytest.raises(StorageMissing):
                call()


def every_call(store: StorageBackend) -> list[Callable[[], object]]:
    return [
        lambda: [*store.list()],
        lambda: store.stat("a"),
        lambda: store.exists("a"),
        lambda: store.retrieve("a"),
        lambda: store.store("a", b"y"),
        lambda: store.delete("a"),
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if not skips(name, "full")])
def test_a_server_without_room_is_told(way: Way) -> None:
    way.direct.store("before", b"x")
    backend = way.through()
    way.strike(Refuse(status=507), count=100)
    with pytest.raises(InsufficientSpace):
        backend.store(SNAPSHOT, DATA)
    assert len(way.waits) <= 1, "only for the connection that was cut before"
    way.data.heal()
    way.data.cut()
    way.holds("before", b"x")
    with pytest.raises(ObjectNotFound):
        way.direct.stat(SNAPSHOT)


@pytest.mark.parametrize("name", ["ftp"])
@pytest.mark.parametrize("reply", [ftplib.error_temp("452 no space"), ftplib.error_perm("552 quota exceeded")], ids=str)
def test_what_ftp_servers_say_of_a_full_disk(way: Way, reply: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> str:
        raise reply

    way.direct.store("before", b"x")
    with monkeypatch.context() as patched:
        patched.setattr(ftplib.FTP, "transfercmd", refused)
        with pytest.raises(InsufficientSpace):
            way.through().store(SNAPSHOT, DATA)
    assert way.waits == []
    way.holds("before", b"x")
