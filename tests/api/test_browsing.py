"""Open repositories are shared so that nobody keeps the others from looking, restoring, or asking anything at all."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from backstay.api.browsing import MOST, MOST_EACH, MOST_WAITING, WAIT_S, Browsing
from backstay.errors import RateLimited
from tests.api.world import World


def test_clients_that_do_not_read_their_downloads_keep_nobody_from_restoring(world: World, backup: Any) -> None:
    where = f"/api/backup/{backup['id']}"
    with ExitStack() as slow:
        for _ in range(MOST):
            slow.enter_context(world.app.state.backing.downloads.repository())
        world.admin.ok("GET", f"{where}/tree?path=/")
        target = {"path": str(world.root / "while-others-download")}
        world.admin.ok("POST", "/api/restore/validate", {"backup_id": backup["id"], "target": target})


def test_a_user_who_downloads_as_much_as_one_may_leaves_room_for_others(world: World, backup: Any) -> None:
    where = f"/api/backup/{backup['id']}/download?path={backup['paths'][0]}/d0/f0.txt"
    user = world["restorer"].ok("GET", "/api/whoami")["user_id"]
    with ExitStack() as slow:
        for _ in range(MOST_EACH):
            slow.enter_context(world.app.state.backing.downloads.repository_for(user))
        assert "at once" in world["restorer"].refused(429, "GET", where)["cause"]
        assert world.admin.call("GET", where).status_code == 200
    assert world["restorer"].call("GET", where).status_code == 200


def test_a_backup_is_not_said_to_be_missing_while_the_disk_of_the_repository_is(world: World, backup: Any) -> None:
    where, repository = f"/api/backup/{backup['id']}", world.root / "repository"
    world.app.state.backing.browsing.close()
    repository.rename(world.root / "elsewhere")
    try:
        for method, path in (("GET", f"{where}/tree?path=/"), ("GET", f"{where}/manifest"), ("DELETE", where)):
            assert world.admin.refused(503, method, path)["code"] == "NoRepository"
    finally:
        (world.root / "elsewhere").rename(repository)
    assert world.admin.ok("GET", f"{where}/tree?path=/")["items"]


def test_only_a_few_wait_for_a_repository_and_the_others_are_told_at_once(world: World) -> None:
    browsing = Browsing(open=lambda: world.app.state.backing.opener().open(), clock=world.service.clock, most=1)
    served: list[bool] = []

    def look() -> None:
        with browsing.repository():
            served.append(True)

    waiting = [threading.Thread(target=look) for _ in range(MOST_WAITING)]
    with browsing.repository():
        for thread in waiting:
            thread.start()
        until = time.monotonic() + 15
        while browsing._waiting.acquire(blocking=False):
            browsing._waiting.release()
            assert time.monotonic() < until
        began = time.monotonic()
        with pytest.raises(RateLimited), browsing.repository():
            pass
        assert time.monotonic() - began < WAIT_S / 2
    for thread in waiting:
        thread.join()
    browsing.close()
    assert len(served) == MOST_WAITING
