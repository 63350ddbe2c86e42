"""What agents do: they fetch their jobs and no others, tell how these go, and lose nothing by being killed."""

from __future__ import annotations

from backstay.repository.repository import Repository
from tests.agents.world import PASSWORD, World, wait_until


def test_an_agent_backs_up_its_host_and_the_service_knows_all_of_it(world: World) -> None:
    agent = world.agent(world.joined("web-1"))
    job = world.ended(world.ask("web", tags=["asked"]))
    assert job.status == "succeeded", world.told(job.id)
    assert job.worker is not None
    assert job.worker.startswith("agent:web-1/")
    assert job.progress is not None
    backup = world.service.index.get(job.backup_id or "")
    assert (backup.policy, backup.job_id, backup.files) == ("web", job.id, 5)
    assert job.result is not None
    assert job.result["outcome"]["verification"]["ok"]
    assert [one["name"] for one in job.result["outcome"]["sources"]] == ["web", "web-shop"]
    assert len(job.result["backups"]) == 2
    lines = [line.message for line in world.service.jobs.lines(job.id)]
    assert "backup began" in lines
    # Programs run on a host only if it allows them.
    refused = world.ended(world.ask("slow"))
    assert (refused.status, (refused.error or {})["title"]) == ("failed", "this host runs no programs for the server")
    assert "--allow-programs" in (refused.error or {})["solution"]
    assert not (world.root / f"began-{refused.id}").exists()
    assert agent.stop() == 0


def test_a_job_of_an_agent_that_is_killed_is_done_when_it_returns(world: World) -> None:
    home = world.joined("web-1")
    first = world.agent(home, "--allow-programs")
    job = world.ask("slow")
    wait_until((world.root / f"began-{job}").exists, lambda: world.told(job))
    first.kill()
    wait_until(lambda: world.job(job).status == "queued", lambda: world.told(job))
    assert any("not heard of" in line.message for line in world.service.jobs.lines(job))
    second = world.agent(home, "--allow-programs")
    (world.root / "go").touch()
    ended = world.ended(job)
    assert ended.status == "succeeded", world.told(job)
    assert ended.attempts >= 2
    assert second.stop() == 0
    (world.root / "go").unlink()


def test_a_job_that_runs_is_cancelled_and_given_back_when_the_agent_is_asked_to_stop(world: World) -> None:
    agent = world.agent(world.joined("web-1"), "--allow-programs")
    first = world.ask("slow")
    wait_until((world.root / f"began-{first}").exists, lambda: world.told(first))
    world.service.jobs.cancel(first, "ann")
    assert world.ended(first).status == "cancelled"
    second = world.ask("slow")
    wait_until((world.root / f"began-{second}").exists, lambda: world.told(second))
    running = world.job(second)
    assert agent.stop() == 0
    given = world.job(second)
    assert (given.status, given.worker, given.attempts) == ("queued", None, running.attempts - 1)
    world.service.jobs.cancel(second, "ann")
    assert world.job(second).status == "cancelled"


def test_a_backup_that_is_not_in_the_repository_of_the_service_is_a_failure(world: World) -> None:
    other = world.root / "other-repository"
    Repository.create(str(other), password=PASSWORD).close()
    agent = world.agent(world.joined("web-1"), repository=other)
    job = world.ended(world.ask("web"))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["title"] == "the backup is not in the repository of this service"
    assert agent.stop() == 0


def test_an_agent_waits_for_a_server_that_is_away_and_tells_it_once(world: World) -> None:
    agent = world.agent(world.joined("web-1"))
    port = world.port
    world.go_away()
    job = world.ask("web")
    wait_until(lambda: "does not answer" in agent.said(), agent.said)
    world.serve(port)
    assert world.ended(job).status == "succeeded", world.told(job)
    wait_until(lambda: "answers again" in agent.said(), agent.said)
    assert agent.said().count("does not answer") == 1
    assert agent.stop() == 0
