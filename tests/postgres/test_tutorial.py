"""The tutorial about PostgreSQL as it stands: every `sh` block is run, in order, by one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tests
from tests.postgres.servers import AS_ROOT, Server, free_port, installation

ROOT = Path(tests.__file__).parents[1]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What `sudo -u postgres` is to the reader: another user, if these tests run as root.
SUDO = f"""#!{sys.executable} -I
import os, pwd, shutil, sys
program = shutil.which(sys.argv[3])
if {AS_ROOT}:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([]), os.setgid(nobody.pw_gid), os.setuid(nobody.pw_uid)
os.chdir("/")
os.execv(program, sys.argv[3:])
"""


def test_every_command_of_the_tutorial_works(server: Server, place: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/tutorial-postgres.md").read_text())
    assert len(blocks) > 10
    port = free_port()
    script = "\n".join(blocks).replace("5544", str(port))
    home, programs = place.parent / "home", place.parent / "bin"
    home.mkdir(mode=0o755)
    programs.mkdir()
    if AS_ROOT:  # what the reader's postgres user can do anyway: come to the data that it owns
        (home / "recovered").mkdir(mode=0o755)
    made = {
        "backstay": f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m backstay "$@"\n',
        "sudo": SUDO,
    }
    for name, text in made.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environ = {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(programs), str(installation(18) / "bin"), os.environ["PATH"]]),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "TZ": "Europe/Vienna",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + script],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
    )
    told = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{(home / 'receive.log').read_text()[-1000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr
    assert done.stdout.split().count("10600") == 2, told
    assert server.sql("select count(*) from orders") == "10600"
