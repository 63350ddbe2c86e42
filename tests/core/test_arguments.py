"""Arguments of wrong types and sizes are refused where they come in, by name, with what they are and what is taken."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import nan
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import pytest

from backstay import aio
from backstay.control.manager.checking import RestoreTest
from backstay.control.manager.manager import BackupManager
from backstay.control.manager.sources import BackupRequest, CommandSource, DatabaseSource, FileSource
from backstay.control.manager.targets import ClusterTarget, DatabaseTarget, DirectoryTarget
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.core.arguments import Bounds, checks_arguments
from backstay.core.clock import Clock, SystemClock
from backstay.errors import InvalidRequest
from backstay.graph import GraphBackupManager, MetadataGraph
from backstay.graph.agents import Agent
from backstay.graph.manager import RestoreMeans
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.verify.run import VerifyOptions
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.repository.values.batch import Batch
from backstay.sources.filters import Filters

CHECKED = (
    BackupManager,
    aio.BackupManager,
    Repository,
    ContentAddressableStorage,
    aio.AsyncContentAddressableStorage,
    GraphBackupManager,
    MetadataGraph,
    FileSource,
    DatabaseSource,
    CommandSource,
    BackupRequest,
    DirectoryTarget,
    DatabaseTarget,
    ClusterTarget,
    RestoreTest,
    Schedules,
    ScheduleSpec,
    Filters,
    Agent,
    RestoreMeans,
    Batch,
    RestoreOptions,
    VerifyOptions,
)
ANYTHING = {"content", "contents", "other", "metadata"}  # values of any kind, which are looked at one by one


HALF = "it has half a character, a lone surrogate"


class Foreign:
    """No argument of anything."""


def parameters() -> Iterator[tuple[type, str, str]]:
    """(class, method, parameter) of all that programs may call."""
    for kind in CHECKED:  # but the asynchronous store, which hands its calls on to the other one
        for name in dir(kind):
            if name != "__init__" and (name.startswith("_") or kind is aio.AsyncContentAddressableStorage):
                continue
            found = inspect.getattr_static(kind, name)
            function = found.__func__ if isinstance(found, classmethod) else found
            if inspect.isfunction(function) and not inspect.isasyncgenfunction(function):
                for parameter in list(inspect.signature(function).parameters)[1:]:
                    if parameter not in ANYTHING:
                        yield kind, name, parameter


@pytest.mark.parametrize(
    ("kind", "method", "parameter"), [*parameters()], ids=lambda value: getattr(value, "__name__", value)
)
def test_every_public_call_refuses_what_it_cannot_take(kind: type, method: str, parameter: str) -> None:
    made: Any = object.__new__(kind)
    if kind is aio.BackupManager:
        made.sync = object.__new__(BackupManager)
    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(_called(getattr(made, method), {parameter: Foreign()}))
    assert f"`{parameter}`" in str(caught.value)
    assert "a Foreign" in str(caught.value.cause)
    assert caught.value.hint


async def _called(call: Callable[..., Any], arguments: dict[str, object]) -> None:
    answer = call(**arguments)
    if inspect.isawaitable(answer):
        await answer


@checks_arguments
class Plain:
    """Takes what it is given."""

    def call(
        self,
        texts: Sequence[str] = (),
        word: Literal["full", "incremental"] = "full",
        number: float = 0.0,
        count: int | None = None,
        least: Annotated[int, Bounds(0)] | str | None = None,
        part: Annotated[float, Bounds(0, 1)] = 0.0,
        place: str | Path | Sequence[str | Path] = "",
        table: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> str:
        del texts, word, number, count, place, table, clock
        return "taken"


@pytest.mark.parametrize(
    ("given", "cause", "hint"),
    [
        ({"texts": "letters"}, "it is a str", "give a list of str"),
        ({"texts": ["a", 3]}, "it is an int", "give a str"),
        ({"word": "whole"}, "it is 'whole'", "give 'full' or 'incremental'"),
        ({"word": 3}, "it is an int", "give 'full' or 'incremental'"),
        ({"number": "3"}, "it is a str", "give a float"),
        ({"count": 1.5}, "it is a float", "give an int or None"),
        ({"place": b"/etc"}, "it is a bytes", "give a str or a Path or a list of str or Path"),
        ({"place": ["/etc", None]}, "it is None", "give a str or a Path"),
        ({"table": [("a", "b")]}, "it is a list", "give a dict or None"),
        ({"clock": 12}, "it is an int", "give a Clock or None"),
        ({"place": "\ud800"}, HALF, "give text that can be written as UTF-8"),
        ({"place": Path("/a/\udfff")}, HALF, "give text that can be written as UTF-8"),
        ({"least": -1}, "it is -1", "give at least 0"),
        ({"least": b"1"}, "it is a bytes", "give an int or a str or None"),
        ({"part": 1.5}, "it is 1.5", "give 0 to 1"),
        ({"part": nan}, "it is nan", "give 0 to 1"),
        ({"part": "1"}, "it is a str", "give a float"),
        ({"texts": ["a", "é\ud800"]}, HALF, "give text that can be written as UTF-8"),
    ],
)
def test_it_is_told_what_came_and_what_is_taken(given: dict[str, Any], cause: str, hint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Plain().call(**given)
    (name,) = given
    assert f"Plain.call does not take this as `{name}" in str(caught.value)
    assert (caught.value.cause, caught.value.hint) == (cause, hint)


def test_an_item_is_named_by_its_number() -> None:
    with pytest.raises(InvalidRequest, match=r"`texts\[1\]`"):
        Plain().call(["a", 3])  # type: ignore[list-item]


def test_who_is_looked_at_is_not_asked_for_anything() -> None:
    class Slow(SystemClock):
        @property
        def now(self) -> NoReturn:
            raise AssertionError

    assert Plain().call(clock=Slow()) == "taken"


@pytest.mark.parametrize(
    "given",
    [
        {"texts": ("a",)},
        {"number": 3},
        {"number": Fraction(1, 3)},
        {"count": True},
        {"place": Path("/etc")},
        {"place": ["/etc", Path("/usr")]},
        {"place": os.fsdecode(b"/\xff"), "texts": ["é", "名"]},
        {"table": {}},
        {"clock": SystemClock()},
        {"least": 0},
        {"least": "-1"},
        {"part": 1},
        {"texts": [], "word": "incremental", "count": None},
    ],
)
def test_what_fits_is_taken(given: dict[str, Any]) -> None:
    assert Plain().call(**given) == "taken"


def test_a_password_of_a_wrong_type_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        BackupManager("/nowhere", password=b"hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.cause} {caught.value.hint}"


def test_what_has_no_type_of_ours_is_left_to_python() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        Plain().call(nothing=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest):
        Plain().call(count=Decimal(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (BackupManager.verify, {"min_bytes": -1}),
        (BackupManager.restore, {"parallel": 0}),
        (BackupManager.restore, {"parallel": 65}),
        (BackupManager.execute, {"retention_days": 0}),
        (BackupManager.list_restores, {"limit": 0}),
        (ClusterTarget.__init__, {"port": 0}),
        (ClusterTarget.__init__, {"port": 65536}),
        (ClusterTarget.__init__, {"patience_s": -0.1}),
        (RestoreOptions.__init__, {"parallel": -1}),
        (RestoreOptions.__init__, {"thaw_days": 0}),
        (VerifyOptions.__init__, {"min_bytes": -1}),
        (VerifyOptions.__init__, {"read_data": nan}),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)),
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_done(
    call: Callable[..., Any], given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="does not take this as"):
        call(object(), **given)


def test_programs_on_asyncio_are_told_the_same_of_numbers() -> None:
    made = object.__new__(aio.BackupManager)
    made.sync = object.__new__(BackupManager)
    with pytest.raises(InvalidRequest, match="`parallel`"):
        asyncio.run(_called(made.restore, {"parallel": 0}))
