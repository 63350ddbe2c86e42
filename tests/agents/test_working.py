"""What agents do: they fetch their jobs and no others, tell how these go, and lose nothing by being killed."""

from __future__ import annotations

from tests.agents.world import World


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
    lines = [line.message for line in world.service.jobs.lines(job.id)]
    assert "backup began" in lines
    assert agent.stop() == 0
