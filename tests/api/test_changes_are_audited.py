"""What is done is in the audit log once, with who did it and to what; a change that cannot be written there is none.

The table names what each endpoint does. An action without a row fails, and so does a row without an action.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.api.app import ENDPOINTS
from backstay.catalog.models import AuditEntry
from backstay.catalog.models.base import Base
from backstay.control.access.principal import the_machine
from backstay.control.jobs.jobs import Jobs
from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import checked
from backstay.errors import CatalogUnavailable
from backstay.trust.certificate_requests import new_request
from tests.api.client import Client, Loop
from tests.api.threads import ThreadEngine
from tests.api.world import World, first_backup, serving

AGENT: Final = "host-7"
OF_AGENT: Final = "\n  far: {agent: host-7, sources: [{type: filesystem, paths: [/srv]}]}\n"
BY_ITSELF: Final = {"counters", "tokens.last_used_at", "agent_processes"}  # no change that somebody asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, and what the log says that it was about."""

    method: str
    path: str
    about: str
    body: Any = None
    who: str = "admin"


@dataclass(slots=True, kw_only=True)
class Stage:
    """The service, in which no job runs, with a backup; what a request needs is made before it."""

    world: World
    backup: str
    file: str
    agent: Client
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def name(self) -> str:
        return f"n{next(self._numbers)}"

    def made(self, path: str, body: Any) -> Any:
        return self.world.admin.ok("POST", path, body)

    def schedule(self, **more: Any) -> str:
        body = {"name": self.name(), "cron": "0 3 * * *", "policy": "files", "enabled": True}
        ident: str = self.made("/api/backup/schedules", body | more)["id"]
        return ident

    def target(self) -> str:
        ident: str = self.made("/api/notifications/targets", self.target_body())["id"]
        return ident

    def target_body(self) -> Any:
        return {"name": self.name(), "address": "json://localhost:9/x"}

    def matcher(self) -> str:
        ident: str = self.made("/api/notifications/matchers", self.matcher_body())["id"]
        return ident

    def matcher_body(self) -> Any:
        return {"name": self.name(), "targets": [self.made("/api/notifications/targets", self.target_body())["name"]]}

    def job_of_agent(self) -> str:
        service = self.world.service
        jobs = Jobs(service.catalog, service.engine, service.clock, agent_of=lambda _: AGENT)
        return jobs.create("backup", {}, actor="ann", policy="far", scope="/policy/far").id

    def process(self) -> dict[str, Any]:
        """A process of the agent that has no job yet."""
        return {"instance": f"{next(self._numbers):016}", "host": "h", "version": "1", "protocol": 1}

    def by(self, asked: Asked) -> Client:
        return self.agent if asked.who == AGENT else self.world[asked.who]


def posted(path: str, about: str, body: Any = None, **more: Any) -> Callable[[Stage], Asked]:
    """A request that needs nothing beforehand; `path` and `about` may name the backup."""
    return lambda stage: Asked(
        method="POST",
        path=path.format(backup=stage.backup),
        about=about.format(backup=stage.backup),
        body={} if body is None else body,
        **more,
    )


def restored(stage: Stage) -> dict[str, Any]:
    return {"backup_id": stage.backup, "target": {"path": str(stage.world.root / stage.name())}}


def made_user(stage: Stage) -> str:
    name: str = stage.made("/api/users", {"name": stage.name()})["name"]
    return name


def invited(stage: Stage) -> str:
    token: str = stage.made("/api/agents", {"name": stage.name()})["token"]
    return token


def _create_user(stage: Stage) -> Asked:
    name = stage.name()
    body = {"name": name, "roles": [{"role": "viewer"}]}
    return Asked(method="POST", path="/api/users", about=f"user/{name}", body=body)


def _update_user(stage: Stage) -> Asked:
    name = made_user(stage)
    return Asked(method="PUT", path=f"/api/users/{name}", about=f"user/{name}", body={"disabled": True})


def _disable_user(stage: Stage) -> Asked:
    name = made_user(stage)
    return Asked(method="DELETE", path=f"/api/users/{name}", about=f"user/{name}")


def _revoke_token(stage: Stage) -> Asked:
    ident = stage.made("/api/tokens", {"name": stage.name()})["id"]
    return Asked(method="DELETE", path=f"/api/tokens/{ident}", about=f"token/{ident}")


def _invite(stage: Stage) -> Asked:
    name = stage.name()
    return Asked(method="POST", path="/api/agents", about=f"agent/{name}", body={"name": name})


def _join(stage: Stage) -> Asked:
    body = {"token": invited(stage), "request": new_request("x")[1]}
    return Asked(method="POST", path="/api/agents/join", about="agent/join", body=body, who="nobody")


def _renew(stage: Stage) -> Asked:
    del stage
    body = {"request": new_request(AGENT)[1]}
    return Asked(method="POST", path="/api/agents/renew", about=f"agent/{AGENT}", body=body, who=AGENT)


def _revoke_agent(stage: Stage) -> Asked:
    name = stage.made("/api/agents", {"name": stage.name()})["agent"]
    return Asked(method="DELETE", path=f"/api/agents/{name}", about=f"agent/{name}")


def _take(stage: Stage) -> Asked:
    ident, body = stage.job_of_agent(), stage.process() | {"wait_s": 0}
    return Asked(method="POST", path="/api/agents/work", about=f"job/{ident}", body=body, who=AGENT)


def _end(stage: Stage) -> Asked:
    ident, process = stage.job_of_agent(), stage.process()
    assert stage.agent.ok("POST", "/api/agents/work", process | {"wait_s": 0})["job"]["id"] == ident
    body = process | {"attempt": 1, "status": "cancelled"}
    return Asked(method="POST", path=f"/api/agents/jobs/{ident}/end", about=f"job/{ident}", body=body, who=AGENT)


def _delete_backup(stage: Stage) -> Asked:
    return Asked(method="DELETE", path=f"/api/backup/{stage.backup}", about=f"backup/{stage.backup}")


def _release(stage: Stage) -> Asked:
    return Asked(method="DELETE", path=f"/api/backup/{stage.backup}/hold", about=f"backup/{stage.backup}")


def _looked(path: str) -> Callable[[Stage], Asked]:
    return lambda stage: Asked(
        method="GET",
        path=path.format(backup=stage.backup, file=stage.file),
        about=f"backup/{stage.backup}",
    )


def _cancel(stage: Stage) -> Asked:
    ident = stage.made("/api/backup/create", {"policy": "files"})["id"]
    return Asked(method="DELETE", path=f"/api/backup/jobs/{ident}", about=f"job/{ident}")


def _cancel_restore(stage: Stage) -> Asked:
    ident = stage.made("/api/restore/initiate", restored(stage))["id"]
    return Asked(method="DELETE", path=f"/api/restore/jobs/{ident}", about=f"job/{ident}")


def _restore(path: str) -> Callable[[Stage], Asked]:
    return lambda stage: Asked(method="POST", path=path, about=f"backup/{stage.backup}", body=restored(stage))


def _create_schedule(stage: Stage) -> Asked:
    body = {"name": stage.name(), "cron": "0 3 * * *", "policy": "files"}
    return Asked(method="POST", path="/api/backup/schedules", about="schedule/", body=body)


def _update_schedule(stage: Stage) -> Asked:
    ident = stage.schedule()
    body = {"name": stage.name(), "cron": "0 4 * * *", "policy": "files"}
    return Asked(method="PUT", path=f"/api/backup/schedules/{ident}", about=f"schedule/{ident}", body=body)


def _delete_schedule(stage: Stage) -> Asked:
    ident = stage.schedule()
    return Asked(method="DELETE", path=f"/api/backup/schedules/{ident}", about=f"schedule/{ident}")


def _of_schedule(what: str) -> Callable[[Stage], Asked]:
    def asked(stage: Stage) -> Asked:
        ident = stage.schedule()
        if what == "resume":
            stage.made(f"/api/backup/schedules/{ident}/pause", {})
        return Asked(method="POST", path=f"/api/backup/schedules/{ident}/{what}", about=f"schedule/{ident}", body={})

    return asked


def _of_notice(method: str, kind: str) -> Callable[[Stage], Asked]:
    def asked(stage: Stage) -> Asked:
        body = stage.target_body() if kind == "target" else stage.matcher_body()
        where = f"/api/notifications/{kind}s"
        if method == "POST":
            return Asked(method=method, path=where, about=f"{kind}/", body=body)
        ident = stage.target() if kind == "target" else stage.matcher()
        about = f"{kind}/{ident}"
        return Asked(method=method, path=f"{where}/{ident}", about=about, body=body if method == "PUT" else None)

    return asked


def _try_target(stage: Stage) -> Asked:
    ident = stage.target()
    return Asked(method="POST", path=f"/api/notifications/targets/{ident}/test", about=f"target/{ident}", body={})


MAIN = "/api/repositories/main/"
OF_POLICY = {"policy": "files", "dry_run": True}

IN_THE_CATALOG: dict[str, Callable[[Stage], Asked]] = {
    "backup.create": posted("/api/backup/create", "policy/files", {"policy": "files"}),
    "backup.validate": posted("/api/backup/{backup}/validate", "backup/{backup}", {"level": "metadata"}),
    "job.cancel": _cancel,
    "restore.plan": _restore("/api/restore/validate"),
    "restore.create": _restore("/api/restore/initiate"),
    "restore.cancel": _cancel_restore,
    "recovery.run": posted("/api/recovery/plans/shop/run", "plan/shop", {"dry_run": True}),
    "repository.gc": posted(MAIN + "gc", MAIN + "gc"),
    "repository.copy": posted(MAIN + "copy", MAIN + "copy"),
    "repository.prune": posted(MAIN + "prune", MAIN + "prune", OF_POLICY),
    "repository.verify": posted(MAIN + "verify", MAIN + "verify", {"policy": "files", "level": "metadata"}),
    "schedule.create": _create_schedule,
    "schedule.update": _update_schedule,
    "schedule.delete": _delete_schedule,
    "schedule.run": _of_schedule("run"),
    "schedule.pause": _of_schedule("pause"),
    "schedule.resume": _of_schedule("resume"),
    "target.create": _of_notice("POST", "target"),
    "target.update": _of_notice("PUT", "target"),
    "target.delete": _of_notice("DELETE", "target"),
    "matcher.create": _of_notice("POST", "matcher"),
    "matcher.update": _of_notice("PUT", "matcher"),
    "matcher.delete": _of_notice("DELETE", "matcher"),
    "user.create": _create_user,
    "user.update": _update_user,
    "user.disable": _disable_user,
    "token.create": posted("/api/tokens", "token/", {"name": "made"}),
    "token.revoke": _revoke_token,
    "agent.invite": _invite,
    "agent.join": _join,
    "agent.renew": _renew,
    "agent.revoke": _revoke_agent,
}
# What is looked at, and what is done in the repository, elsewhere, or by a process that would only come back with it.
BESIDE_IT: dict[str, Callable[[Stage], Asked]] = {
    "backup.tree": _looked("/api/backup/{backup}/tree"),
    "backup.download": _looked("/api/backup/{backup}/download?path={file}"),
    "backup.diff": _looked("/api/backup/{backup}/diff/{backup}"),
    "audit.verify": lambda _: Asked(method="GET", path="/api/audit/verify", about="/api/audit/verify"),
    "key.rotate": posted("/api/keys/rotate", "key/"),
    "target.test": _try_target,
    "job.end": _end,
    "job.take": _take,
    "hold.set": posted("/api/backup/{backup}/hold", "backup/{backup}", {"reason": "tried"}),
    "hold.release": _release,
    "backup.delete": _delete_backup,  # the last one, for the others need it
}
UNTOLD = {"job.report"}  # every few seconds: the log of the job has it


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with serving(tmp_path_factory.mktemp("audited")) as world:
        backup = first_backup(world)
        world.service.stop()
        idle = ThreadEngine()  # jobs wait in it
        world.service.jobs = Jobs(world.service.catalog, idle, world.service.clock)
        with closing(idle), agent_of(world) as agent:
            yield Stage(world=world, backup=backup["id"], file=backup["paths"][0] + "/d0/f0.txt", agent=agent)


@contextmanager
def agent_of(world: World) -> Iterator[Client]:
    """An agent with work, known by its certificate as the server hands it on."""
    text = (world.root / "policies.yaml").read_text() + OF_AGENT
    world.service.policies._loaded = checked(parse_document(text.encode(), "policies.yaml"), {})
    agents = world.service.access.agents
    with world.service.catalog.session() as session:
        token = agents.invite(session, by=the_machine(), name=AGENT).text
        issued = agents.join(session, token, new_request(AGENT)[1])
    certificate = base64.b64decode("".join(issued.pem.splitlines()[1:-1]))

    async def shown(scope: Any, receive: Any, send: Any) -> None:
        await world.app(scope | {"extensions": {"tls": {"client_certificate": certificate}}}, receive, send)

    with Loop(shown) as loop:  # type: ignore[arg-type]  # an application like any other
        yield Client(loop, None)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are not sent anywhere, and there is no copy."""
    monkeypatch.setattr("backstay.api.routes.repositories.require_copies", lambda _: None)
    monkeypatch.setattr("backstay.control.notifying.notifier.Notifier.send_test", lambda *_: "sent")


def entries(session: Session, after: int) -> list[AuditEntry]:
    return list(session.scalars(select(AuditEntry).where(AuditEntry.seq > after).order_by(AuditEntry.seq)))


def newest(stage: Stage) -> int:
    with stage.world.service.catalog.reading() as session:
        return max((entry.seq for entry in entries(session, 0)), default=0)


def kept(stage: Stage) -> dict[str, Any]:
    """All rows of the catalog, but for what changes without anybody asking for it."""
    with stage.world.service.catalog.reading() as session:
        return {
            table.name: sorted(
                repr([value for name, value in row.items() if f"{table.name}.{name}" not in BY_ITSELF])
                for row in session.execute(select(table)).mappings()
            )
            for table in Base.metadata.sorted_tables
            if table.name not in BY_ITSELF
        }


def test_each_action_of_the_interface_has_a_row() -> None:
    assert {*IN_THE_CATALOG, *BESIDE_IT, *UNTOLD} == {one.does for one in ENDPOINTS if one.does is not None}
    assert not IN_THE_CATALOG.keys() & BESIDE_IT.keys()


@pytest.mark.parametrize("action", IN_THE_CATALOG)
def test_a_change_that_cannot_be_told_is_none(stage: Stage, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = IN_THE_CATALOG[action](stage)
    client = stage.world.nobody if asked.who == "nobody" else stage.by(asked)
    before, told = kept(stage), []

    def full(*_: object, outcome: str, **__: object) -> None:
        told.append(outcome)
        raise CatalogUnavailable("the audit log cannot be written", cause="no room", hint="make room")

    monkeypatch.setattr("backstay.catalog.audit.AuditLog.record", full)
    assert client.call(asked.method, asked.path, asked.body).status_code == 503
    assert told[0] == "allow"
    assert kept(stage) == before


@pytest.mark.parametrize("action", [*IN_THE_CATALOG, *BESIDE_IT])
def test_what_was_done_is_told_once_with_who_did_it_and_to_what(stage: Stage, action: str) -> None:
    asked = (IN_THE_CATALOG | BESIDE_IT)[action](stage)
    before = newest(stage)
    client = stage.world.nobody if asked.who == "nobody" else stage.by(asked)
    answer = client.call(asked.method, asked.path, asked.body)
    assert answer.status_code < 300, answer.text
    with stage.world.service.catalog.reading() as session:
        (entry,) = entries(session, before)
        actor = "anonymous" if asked.who == "nobody" else asked.who
        assert (entry.actor, entry.action, entry.outcome) == (actor, action, "allow")
        assert entry.object.startswith(asked.about)
