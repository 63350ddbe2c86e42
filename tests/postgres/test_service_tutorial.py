"""The tutorial about the service as it stands: every `sh` block is run, in order, by one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tests
from tests.postgres.servers import Server, free_port, installation

ROOT = Path(tests.__file__).parents[1]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_command_of_the_tutorial_works(server: Server, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/tutorial-service.md").read_text())
    assert len(blocks) > 10
    script = "\n".join(blocks).replace("5555", str(free_port())).replace("5556", str(free_port()))
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    backstay = programs / "backstay"
    backstay.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m backstay "$@"\n')
    backstay.chmod(0o755)
    environ = {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(programs), str(installation(18) / "bin"), os.environ["PATH"]]),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + script],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
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
