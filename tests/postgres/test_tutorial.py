"""The tutorial about PostgreSQL as it stands: every `sh` block is run, in order, by one shell."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.ports import free_port
from tests.postgres.servers import AS_ROOT, Server, installation
from tests.tutorials import blocks_of, run_script

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
    blocks = blocks_of("docs/tutorial-postgres.md")
    assert len(blocks) > 10
    port = free_port()
    script = "\n".join(blocks).replace("5544", str(port))
    home, programs = place.parent / "home", place.parent / "bin"
    home.mkdir(mode=0o755)
    programs.mkdir()
    if AS_ROOT:  # what the reader's postgres user can do anyway: come to the data that it owns
        (home / "recovered").mkdir(mode=0o755)
    done = run_script(
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + script,
        home=home,
        programs=programs,
        path=(installation(18) / "bin",),
        others={"sudo": SUDO},
        environ={"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "TZ": "Europe/Vienna"},
    )
    told = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{(home / 'receive.log').read_text()[-1000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr
    assert done.stdout.split().count("10600") == 2, told
    assert server.sql("select count(*) from orders") == "10600"
