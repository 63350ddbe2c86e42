"""`serve` and `worker` as programs: what they say, refuse, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cli.conftest import SOURCE, Account


class Program:
    """A service that runs."""

    def __init__(self, account: Account, *argv: str) -> None:
        environ = {**account.environ, "PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
        command = [sys.executable, "-m", "backstay", "serve", "--port", "0", *argv]
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def end(self) -> tuple[int, float, str]:
        """Status, seconds until it was gone, and what it had said to people."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, time.monotonic() - began, said


@pytest.fixture
def data(account: Account) -> Path:
    return account.root / "data"


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.process.kill()
        program.process.communicate()


def test_serve_tells_where_it_is_answers_and_ends_within_seconds(
    account: Account, data: Path, programs: list[Program]
) -> None:
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as taken:  # a start that fails takes away nobody's only look at the token
        account.json("serve", "--port", taken.getsockname()[1], "--data-dir", data, status=11)
    with Path("/dev/full").open("w") as full:  # nor does one that cannot tell of it
        unseen = account.program("serve", "--port", "0", "--data-dir", data, stdout=full)
        unseen.communicate(timeout=60)
        assert unseen.returncode != 0
    programs.append(Program(account, "--json", "--data-dir", str(data)))
    told = json.loads(programs[0].out.readline())
    assert (told["data_dir"], told["policy_file"], told["worker"]) == (str(data), None, "embedded")
    programs[0].process.send_signal(signal.SIGHUP)  # asks others for new settings, and ends nothing here
    with urllib.request.urlopen(told["address"] + "/api/health/ready", timeout=60) as answer:
        assert answer.status == 200
    asked = urllib.request.Request(
        told["address"] + "/api/backup/jobs", headers={"Authorization": f"Bearer {told['token']}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert json.load(answer)["items"] == []
    refused = account.json("serve", "--port", "0", "--data-dir", data, status=11)
    assert (refused["code"], str(programs[0].process.pid) in refused["cause"]) == ("JobConflict", True)
    status, seconds, said = programs[0].end()
    assert (status, said) == (0, "")
    assert seconds < 28

    programs.append(Program(account, "--data-dir", str(data)))
    lines = [programs[1].out.readline() for _ in range(4)]
    assert lines[0].startswith("Backstay serves http://127.0.0.1:")
    assert (lines[1], lines[2][:24]) == (f"data directory: {data}\n", "policy file:    none: gi")
    status, _, said = programs[1].end()
    assert (status, said) == (0, "")  # no second token


@pytest.mark.parametrize(
    ("argv", "code", "part"),
    [
        (("serve", "--no-worker"), "InvalidRequest", "nobody would run jobs"),
        (("serve", "--tls-cert", "x.pem"), "InvalidRequest", "its key"),
        (("serve", "--host", "0.0.0.0"), "InvalidRequest", "without TLS"),
        (("serve", "--database", "mysql://host/x"), "InvalidRequest", "cannot be kept there"),
        (("worker",), "InvalidRequest", "many processes share"),
        (("worker", "--queues", "backup,none", "--database", "postgresql://h/x"), "InvalidRequest", "'none'"),
        (("worker", "--database", "postgresql://u@127.0.0.1:1/x"), "CatalogUnavailable", "catalog"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    account: Account, data: Path, argv: tuple[str, ...], code: str, part: str
) -> None:
    status = 15 if code == "CatalogUnavailable" else 2
    told = account.json(*argv, "--data-dir", data, status=status)
    assert told["code"] == code
    assert part in told["title"]


def test_a_policy_file_with_mistakes_is_not_served(account: Account, data: Path) -> None:
    file = account.root / "bad.yaml"
    file.write_text("policies:\n  files:\n    sources: []\n    shedule: {}\n")
    told = account.json("serve", "--config", file, "--data-dir", data, status=2)
    assert told["code"] == "PolicyInvalid"
    assert any("shedule" in mistake["key"] for mistake in told["errors"])


def test_an_installation_without_the_server_says_what_to_install(
    account: Account, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "backstay" and ".service" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "backstay.control.jobs.dbos_engine", raising=False)
    monkeypatch.setitem(sys.modules, "dbos", None)
    told = account.json("serve", "--data-dir", data, status=2)
    assert (told["code"], "dbos" in told["cause"], "backstay[server]" in told["hint"]) == (
        "ServerExtraMissing", True, True,
    )  # fmt: skip
