"""Rehearsals of snapshots of PostgreSQL: a cluster is started, a dump goes into a server, both are asked."""

from __future__ import annotations

import os
from pathlib import Path

from backstay.core.events import ignore
from backstay.operations.verify.rehearsal import rehearse_snapshot
from backstay.operations.verify.scratch_dump import PREFIX
from backstay.operations.verify.trial import Question, Trial
from backstay.repository.repository import Repository
from tests.postgres.dumps import dump, new_database
from tests.postgres.recovering import archive, back_up
from tests.postgres.servers import Server, installation


def test_clusters_and_dumps_are_started_and_asked(repository: Repository, server: Server, place: Path) -> None:
    url = new_database(server, "shop", "create table t as select generate_series(1, 30) x")
    dumped = dump(repository, url).snapshot
    backed_up = back_up(repository, server).snapshot
    archive(repository, server)
    assert dumped is not None
    asked = (
        Question(sql="select count(*) = 30 from t", database="shop"),
        Question(sql="select min(x), max(x) from t", expect=((1, 30),), database="shop"),
        Question(sql="select count(*) from t", expect=((31,),), database="shop"),
    )
    environ = {"PATH": f"{installation(18) / 'bin'}:{os.environ['PATH']}"}
    trial = Trial(questions=asked, server=server.url, environ=environ)
    scratch = place / "rehearsals"
    scratch.mkdir()
    for snapshot, started in ((dumped, "restore into a server"), (backed_up, "recovery")):
        manifest = repository.snapshots.get(snapshot)
        done = rehearse_snapshot(repository, manifest, scratch, trial, events=ignore)
        found = {outcome.check: outcome for outcome in done.outcomes}
        assert found[started].status == "ok", found[started].details
        assert [found[f"query {one.sql}"].status for one in asked] == ["ok", "ok", "failed"]
        assert done.usable_s >= found[started].duration_s / 2 > 0
        assert list(scratch.iterdir()) == []
    left = server.sql(f"select count(*) from pg_database where datname like '{PREFIX}%'")
    assert left == "0"
    without = rehearse_snapshot(
        repository, repository.snapshots.get(dumped), scratch, Trial(environ=environ), events=ignore
    )
    assert without.outcomes[-1].status == "skipped"
    assert without.ok
