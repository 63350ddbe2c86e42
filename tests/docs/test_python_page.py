"""The page on Python as it stands: every block runs, in order, with real servers in place of those that it names."""

from __future__ import annotations

import ftplib
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from backstay.core.clock import SystemClock, ns_from_datetime
from tests.control.manager.conftest import PASSWORD
from tests.ports import free_port
from tests.postgres.dumps import new_database
from tests.postgres.servers import running_server
from tests.storage.remote.processes import ServerProcess

PAGE = Path(__file__).parents[2] / "docs/python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACES = (
    "/secure/backups",
    "/secure/platform",
    "/data/uploads",
    "/data/restored",
    "/config",
    "/srv/keys",
    "/srv/storage",
    "/srv/restored",
    "/etc/platform",
    "/srv/test-restore",
)
SOURCES = ("/data/uploads", "/config", "/srv/keys", "/srv/storage", "/etc/platform")
THEN = datetime(2025, 6, 24, 12, 0, tzinfo=UTC)


@contextmanager
def hook() -> Iterator[tuple[str, list[bytes]]]:
    """A webhook, and what it was sent."""
    sent: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called there
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Take) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", sent
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ftp_server(place: Path) -> Iterator[int]:
    """A server for one directory; its port."""
    port = free_port()
    program = Path(__file__).parents[1] / "storage/remote/ftp_server.py"
    server = ServerProcess([sys.executable, str(program), str(port), str(place), "user", "secret"], port).start()
    try:
        yield port
    finally:
        server.stop()


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for place in SOURCES:
        (tmp_path / place.strip("/")).mkdir(parents=True)
        (tmp_path / place.strip("/") / "file.txt").write_text(f"of {place}\n" * 200)
        (tmp_path / place.strip("/") / "file.tmp").write_text("scratch")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    # The page was written on that day.
    monkeypatch.setattr(SystemClock, "now", lambda _: THEN)
    monkeypatch.setattr(SystemClock, "now_ns", lambda _: ns_from_datetime(THEN))
    (tmp_path / "ftp/backups").mkdir(parents=True)
    page = PAGE.read_text()
    with running_server() as database, hook() as (address, sent), ftp_server(tmp_path / "ftp") as ftp:
        new_database(database, "mydb", "create table public.t as select generate_series(1, 100) i")
        new_database(database, "restored")
        replaced = {place: str(tmp_path / place.strip("/")) for place in PLACES}
        replaced |= {
            f"postgresql://localhost:5432/{name}": f"{database.url.removesuffix('/postgres')}/{name}"
            for name in ("mydb", "restored")
        }
        replaced |= {"s3://backups?region=us-west-2": str(tmp_path / "s3"), "http://localhost:8099/hook": address}

        def here(text: str) -> str:
            for old, new in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
                text = (
                    text.replace(f'"{old}', f'"{new}')
                    .replace(f"path: {old}", f"path: {new}")
                    .replace(f"[{old}]", f"[{new}]")
                )
            return text.replace("correct horse battery staple", PASSWORD)

        (policies,) = YAML.findall(page)
        (tmp_path / "backstay.yaml").write_text(here(policies))
        monkeypatch.setenv("BACKSTAY_PASSWORD", PASSWORD)
        client = ftplib.FTP()
        client.connect("127.0.0.1", ftp)
        client.login("user", "secret")
        space: dict[str, Any] = {"__name__": "page", "client": client}
        blocks = BLOCK.findall(page)
        assert len(blocks) >= 14
        for number, block in enumerate(blocks):
            line = page[: page.index(block)].count("\n")
            exec(compile("\n" * line + here(block), f"{PAGE} block {number}", "exec", dont_inherit=True), space)
        client.close()
        assert database.sql("select count(*) from t", "restored") == "100"
    told = capsys.readouterr().out
    assert told.count("Check passed") == 5
    assert "Check failed" not in told
    assert "backup_jobs_total" in told
    assert (tmp_path / "data/restored/file.txt").read_text().startswith("of /data/uploads")
    assert len(space["deleted"]) == 2
    assert space["schedule"].next_run_at > THEN
    assert [path.name for path in (tmp_path / "srv/restored").rglob("*.txt")] == ["file.txt"]
    assert sent, "the webhook was told"
    assert space["delivered"].failed == 0
