"""The tutorial about the service as it stands: every `sh` block is run, in order, by one shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ports import free_port
from tests.postgres.servers import Server, installation
from tests.tutorials import blocks_of, run_script


@pytest.mark.long  # it waits for the minute in which a schedule is due
def test_every_command_of_the_tutorial_works(server: Server, tmp_path: Path) -> None:
    blocks = blocks_of("docs/tutorial-service.md")
    assert len(blocks) > 10
    script = "\n".join(blocks).replace("5555", str(free_port())).replace("5556", str(free_port()))
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    done = run_script(
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + script,
        home=home,
        programs=programs,
        path=(installation(18) / "bin",),
        environ={"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"},
    )
    log = home / "shop/serve.log"
    told = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{log.read_text()[-2000:] if log.exists() else ''}"
    assert done.returncode == 0, told
    assert "Traceback" not in told
    said = done.stdout.split("\n")
    assert said.count("succeeded") == 4, told
    assert said.count("failed") == 1, told
    assert '    "rehearsed_ok": true,' in said, told
    assert "all invoices are back" in said, told
    assert "and once more" in said, told
