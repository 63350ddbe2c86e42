"""A service with two policies and people of every role, and its interface; its jobs are run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from backstay.api.app import create_app
from backstay.api.backing import ApiOptions
from backstay.control.access.access import Access
from backstay.control.access.authority_file import open_authority
from backstay.control.access.principal import the_machine
from backstay.control.access.rate_limits import Rate
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.queues import QUEUES
from backstay.control.service.options import ServiceOptions
from backstay.control.service.service import Service
from tests.api.client import Client, Loop
from tests.api.threads import ThreadEngine

PEOPLE = {
    "admin": [("admin", "/")],
    "viewer": [("viewer", "/")],
    "operator": [("operator", "/")],
    "restorer": [("restorer", "/")],
    "auditor": [("auditor", "/")],
    "stranger": [("admin", "/policy/other")],  # everything, but not here
}
POLICIES = """\
backup_manager:
  storage: {{type: local, path: {root}/repository}}
  scheduling: {{timezone: UTC}}
  service: {{recovery_plans: {root}/plans}}
policies:
  files:
    description: what people wrote
    sources:
      - {{type: filesystem, paths: ["{root}/src"], exclude: ["*.tmp"]}}
      - {{type: filesystem, name: more, paths: ["{root}/more"]}}
    schedule: {{full: "0 0 * * *"}}
    retention: {{keep_last: 100}}
  other:
    sources:
      - {{type: filesystem, paths: ["{root}/more"]}}
"""

PLAN = """\
description: the files, and a mark
steps:
  files: {{type: restore, backup: latest:files, to: {root}/recovered, conflict: skip}}
  mark: {{type: command, command: [touch, {root}/mark], needs: [files], confirm: mark it?}}
"""


@dataclass(slots=True, kw_only=True)
class World:
    """The service, its interface, and a client for each of the people."""

    root: Path
    service: Service
    app: FastAPI
    loop: Loop
    tokens: Mapping[str, str]

    def __getitem__(self, name: str) -> Client:
        return Client(self.loop, self.tokens[name])

    @property
    def admin(self) -> Client:
        return self["admin"]

    @property
    def nobody(self) -> Client:
        return Client(self.loop, None)

    def token(self, **limits: Any) -> Client:
        """The administrator, by a token with limits."""
        made = self.admin.ok("POST", "/api/tokens", {"name": "limited", **limits})
        return Client(self.loop, made["token"])

    def ended(self, where: str, *, status: str = "succeeded", within_s: float = 60) -> Any:
        """A job once it has ended so."""
        until = time.monotonic() + within_s
        while (job := self.admin.ok("GET", where))["finished_at"] is None:
            assert time.monotonic() < until, job
            time.sleep(0.05)
        assert job["status"] == status, job
        return job

    def backup(self, **asked: Any) -> Any:
        """A new backup of a policy."""
        begun = self.admin.ok("POST", "/api/backup/create", {"policy": "files", **asked})
        return self.ended(f"/api/backup/jobs/{begun['id']}")


@contextmanager
def serving(root: Path, *, options: ApiOptions | None = None, works: bool = True) -> Iterator[World]:
    """A world in an empty directory."""
    for name, count in (("src", 12), ("more", 3)):
        for number in range(count):
            place = root / name / f"d{number % 3}" / f"f{number}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{name} {number} " * 40)
    (root / "src" / "left-out.tmp").write_text("no")
    (root / "policies.yaml").write_text(POLICIES.format(root=root))
    (root / "plans").mkdir()
    (root / "plans/shop.yaml").write_text(PLAN.format(root=root))
    environ = {"HOME": str(root), "BACKSTAY_PASSWORD": "a long password of the tests"}
    chosen = ServiceOptions(
        data_dir=root / "data",
        config=root / "policies.yaml",
        queues=(),
    )
    with Service.open(chosen, environ=environ, warn=_unheard) as opened:
        engine = ThreadEngine()
        service = replace(
            opened,
            options=replace(chosen, queues=tuple(QUEUES) if works else ()),
            engine=engine,
            jobs=Jobs(opened.catalog, engine, opened.clock),
        )
        generous = Rate(times=100_000, seconds=60)
        service.access = Access(
            service.catalog,
            service.clock,
            authority=open_authority(service.data_dir, service.clock),
            run_by=service.policies.run_by,
            rates={"api": generous, "restore": generous, "unrecognised": generous},
        )
        if works:
            service.start()
        try:
            app = create_app(service, options)
            with Loop(app) as loop:
                yield World(root=root, service=service, app=app, loop=loop, tokens=_people(service))
            app.state.backing.close()
        finally:
            service.stop()


def first_backup(world: World) -> Any:
    """A backup of the first source of `files`."""
    job = world.backup(sources=["files"], tags=["first"], description="the first one")
    return world.admin.ok("GET", f"/api/backup/{job['backup_id']}")


def _unheard(text: str) -> None:
    """Tests look at what is answered."""


def _people(service: Service) -> dict[str, str]:
    tokens, by = {}, the_machine()
    users, made = service.access.users, service.access.tokens
    with service.catalog.session() as session:
        for name, roles in PEOPLE.items():
            users.add(session, by=by, name=name)
            for role, scope in roles:
                users.grant(session, by=by, name=name, role=role, scope=scope)
            tokens[name] = made.create(session, by=by, user=name, name="test").text
    return tokens
