"""Rows of the catalog as other parts of the service write them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy.orm import Session

from backstay.catalog.models import AgentProcess, Backup, Job, RepositorySample, ScheduleRecord, User, Worker
from backstay.control.notifying.messages import Message
from backstay.errors import NotificationFailed

_NUMBERS: Iterator[int] = count(1)
REPOSITORY = "ab" * 16


def new_id() -> str:
    return f"{next(_NUMBERS):026d}"


def job(
    now: datetime, *, status: str = "succeeded", kind: str = "backup", policy: str | None = "shop", **more: Any
) -> Job:
    """A job that took seven seconds, and ended now if it did."""
    ended = status in ("succeeded", "failed", "cancelled")
    values: dict[str, Any] = {
        "id": new_id(),
        "kind": kind,
        "status": status,
        "queue": "backup",
        "policy": policy,
        "arguments": {},
        "created_at": now - timedelta(seconds=10),
        "started_at": None if status == "queued" else now - timedelta(seconds=7),
        "finished_at": now if ended else None,
        "error": {
            "code": "InsufficientSpace",
            "title": "there is no room",
            "cause": "the disk is full",
            "solution": "buy one",
        }
        if status == "failed"
        else None,
    }
    return Job(**{**values, **more})


def add_agent_process(session: Session, now: datetime, *, name: str = "web-1") -> None:
    """An agent and its process, which was heard of now."""
    user = User(id=new_id(), name=name, kind="agent", disabled=False, created_at=now)
    session.add(user)
    session.flush()  # no process without its user
    worker = f"agent:{name}/0"
    session.add(AgentProcess(worker=worker, user_id=user.id, host="web", version="1", started_at=now, seen_at=now))


def backup(time: datetime, *, source: str = "shop", policy: str | None = "shop", **more: Any) -> Backup:
    values: dict[str, Any] = {
        "id": new_id(),
        "repository": REPOSITORY,
        "policy": policy,
        "source": source,
        "type": "full",
        "host": "here",
        "time": time,
        "recorded_at": time,
        "bytes": 1000,
        "stored_bytes": 100,
        "duration_s": 2.5,
    }
    return Backup(**{**values, **more})


def schedule(now: datetime, cron: str, *, policy: str = "shop", type: str = "full", **more: Any) -> ScheduleRecord:  # noqa: A002
    values: dict[str, Any] = {
        "id": new_id(),
        "name": f"{policy} {cron}",
        "policy": policy,
        "type": type,
        "cron": cron,
        "created_at": now,
        "updated_at": now,
    }
    return ScheduleRecord(**{**values, **more})


def sample(time: datetime, used: int, **more: Any) -> RepositorySample:
    return RepositorySample(
        **{"time": time, "repository": REPOSITORY, "tier": "hot", "used_bytes": used, "facts": {}, **more}
    )


def worker(now: datetime, *, host: str = "node1", pid: int = 7, lease: timedelta = timedelta(seconds=15)) -> Worker:
    return Worker(id=f"{host}:{pid}", host=host, pid=pid, queues=["backup"], started_at=now, lease_until=now + lease)


class Mailbox:
    """A sender that keeps what it is given, or refuses it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Message]] = []
        self.refuses: set[str] = set()
        self.dies = False

    def send(self, message: Message, address: str) -> None:
        if self.dies:
            raise KeyboardInterrupt  # as a process ends: nothing catches it
        if address in self.refuses:
            raise NotificationFailed("a message was not taken by json://***", cause="the server answered 500")
        self.got.append((address, message))

    @property
    def titles(self) -> list[str]:
        return [message.title.removeprefix("[Backstay] ") for _, message in self.got]
