"""The server: TLS 1.3, certificates of clients, streams, bounds, and its end."""

from __future__ import annotations

import gc
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from backstay.api import connections
from backstay.api import server as serving
from backstay.api.browsing import MOST_EACH
from backstay.api.server import run
from backstay.api.tls import Shown, Tls
from backstay.control.access.agents import CERTIFICATE_LIFE
from backstay.errors import InvalidRequest, ServiceRunning
from backstay.trust.certificate_requests import new_request
from tests.api.world import World


@dataclass(frozen=True)
class Running:
    address: str
    stop: threading.Event

    @property
    def place(self) -> tuple[str, int]:
        host, _, port = self.address.partition("://")[2].rpartition(":")
        return host, int(port)


@contextmanager
def running(world: World, **options: Any) -> Iterator[Running]:
    """A server in a thread, as long as this lasts."""
    told: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def tell(address: str) -> None:
        told.append(address)
        ready.set()

    thread = threading.Thread(
        target=lambda: run(world.service, port=0, ready=tell, stopped=stop.is_set, **options), daemon=True
    )
    thread.start()
    assert ready.wait(60)
    yield Running(told[0], stop)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Running]:
    with running(world) as found:
        yield found


def bearer(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.tokens['admin']}"}


def test_a_free_port_is_taken_and_told(server: Running) -> None:
    assert httpx.get(f"{server.address}/api/health/live").json() == {"status": "ok"}


def test_the_search_for_garbage_leaves_out_what_was_there_before_the_server(world: World) -> None:
    gc.unfreeze()  # what a server of other tests left out
    with running(world):
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def test_off_this_machine_it_listens_with_tls_alone(world: World) -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InvalidRequest, match="without TLS"):
            run(world.service, host=host)
    with pytest.raises(InvalidRequest, match="no address"):
        run(world.service, host="no.such.host.invalid")


def test_an_address_that_is_served_already_is_told(world: World, server: Running) -> None:
    with pytest.raises(ServiceRunning):
        run(world.service, port=server.place[1])


def test_a_job_is_followed_and_goes_on_after_the_last_line_that_was_heard(world: World, server: Running) -> None:
    begun = world.admin.ok("POST", "/api/backup/create", {"policy": "other"})
    where = f"{server.address}/api/backup/jobs/{begun['id']}/events"
    heard = list(events(where, bearer(world)))
    assert heard[-1][0] == "end"
    states = [data["status"] for name, _, data in heard if name == "job"]
    assert states[-1] == "succeeded"
    lines = [int(ident) for name, ident, _ in heard if name == "line"]
    assert lines == sorted(set(lines))
    assert len(lines) >= 2
    again = list(events(where, bearer(world) | {"Last-Event-ID": str(lines[0])}))
    assert [int(ident) for name, ident, _ in again if name == "line"] == lines[1:]


@contextmanager
def listening(where: str, headers: dict[str, str]) -> Iterator[Iterator[tuple[str, str, Any]]]:
    """The events of a stream that is open already."""
    with httpx.stream("GET", where, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        yield events_of(answer)


def events(where: str, headers: dict[str, str]) -> Iterator[tuple[str, str, Any]]:
    with listening(where, headers) as found:
        yield from found


def events_of(answer: httpx.Response) -> Iterator[tuple[str, str, Any]]:
    found: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif "event" in found:
            yield found["event"], found.get("id", ""), json.loads(found["data"])
            found = {}


def test_all_jobs_are_followed_by_those_who_may_see_them(world: World, server: Running, backup: Any) -> None:
    assert backup  # a dry run needs a repository that is there
    with listening(f"{server.address}/api/events", bearer(world)) as stream:
        begun = world.admin.ok("POST", "/api/backup/create", {"policy": "other", "dry_run": True})
        seen = [data["status"] for _, _, data in until_ended(stream, begun["id"])]
    assert seen[-1] == "succeeded"


def until_ended(stream: Iterator[tuple[str, str, Any]], job: str) -> Iterator[tuple[str, str, Any]]:
    for found in stream:
        if found[2].get("id") == job:
            yield found
            if found[2]["finished_at"] is not None:
                return


def test_the_end_does_not_wait_for_those_who_listen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.api.server.GRACE_S", 200)
    with running(world) as server, httpx.stream("GET", f"{server.address}/api/events", headers=bearer(world)) as answer:
        assert answer.status_code == 200
        begun = time.monotonic()
        server.stop.set()
        for _ in answer.iter_bytes():
            pass
        assert time.monotonic() - begun < 100


def test_a_head_that_is_too_large_or_no_http_is_refused(server: Running) -> None:
    for sent in (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * (80 << 10) + b"\r\n\r\n", b"\x16\x03\x01 hello\r\n\r\n"):
        with socket.create_connection(server.place, timeout=10) as link:
            link.sendall(sent)
            answer = link.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "BadRequest"


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    with socket.create_connection(server.place, timeout=10) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert link.recv(100) == b""


def test_downloads_that_nobody_takes_are_ended_and_leave_their_places_to_others(
    server: Running, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TAKE_S", 0.2)
    large = world.root / "more" / "large"
    large.write_bytes(os.urandom(16 << 20))  # more than kernels keep for a client
    job = world.backup(sources=["more"])
    large.unlink()
    where = f"/api/backup/{job['backup_id']}/download?path={large.parent}"
    request = f"GET {where}/large HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer(world)['Authorization']}\r\n\r\n"
    with ExitStack() as open_links:
        for _ in range(MOST_EACH):
            link = open_links.enter_context(socket.socket())
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect(server.place)
            link.sendall(request.encode())
            assert link.recv(12) == b"HTTP/1.1 200"
        until = time.monotonic() + 30
        while (found := httpx.get(f"{server.address}{where}/d0/f0.txt", headers=bearer(world))).status_code == 429:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert found.status_code == 200


@pytest.mark.parametrize(("left", "ended"), [((900_000, 700_000, 600_000), True), ((900_000, 700_000, 500_000), False)])
def test_a_client_that_takes_an_answer_slowly_is_waited_for(left: tuple[int, ...], ended: bool) -> None:
    connection: Any = connections.Connection.__new__(connections.Connection)
    connection.transport, connection.loop = Mock(), Mock()
    connection.transport.get_write_buffer_size.side_effect = [left[0], *(size for size in left[1:] for _ in "ab")]
    connection.transport.is_closing.return_value = False
    connection._wait_for_taking()
    for _ in left[1:]:
        _, look, before = connection.loop.call_later.call_args.args
        look(before)
    assert connection.transport.abort.called is ended


def test_a_body_that_does_not_come_to_its_end_is_not_waited_for_and_an_answer_is(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_S", 0.2)
    head = b"POST /api/agents/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    with socket.create_connection(server.place, timeout=10) as link:
        link.sendall(head + b'{"token')
        assert link.recv(100) == b""
    with socket.create_connection(server.place, timeout=10) as link:
        link.sendall(head + b"x" * 20)
        assert link.recv(100).startswith(b"HTTP/1.1 422")
        time.sleep(0.3)
        link.sendall(head + b"x" * 20)  # the line is still there
        link.settimeout(5)
        told = b""
        while b"HTTP/1.1 422" not in told:  # behind what is left of the first answer, or together with it
            told += (piece := link.recv(10_000))
            assert piece, "the line was ended"


@pytest.mark.parametrize("renewed", [False, True])
def test_tls_is_1_3_and_agents_are_known_by_their_certificates(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renewed: bool
) -> None:
    monkeypatch.setattr(serving, "_LOOK_TICKS", 1)
    authority = world.service.access.agents.authority

    def put() -> str:
        made = authority.issue_server(["127.0.0.1", "localhost"], clock=world.service.clock, life=CERTIFICATE_LIFE)
        (tmp_path / "cert").write_text(made[0].pem)
        (tmp_path / "key").write_text(made[1])
        return made[0].pem

    put()
    (tmp_path / "ca").write_text(authority.certificate)
    invited = world.admin.ok("POST", "/api/agents", {"name": "host-1"})
    own_key, request = new_request("host-1")
    joined = world.nobody.ok("POST", "/api/agents/join", {"token": invited["token"], "request": request})
    world.nobody.refused(401, "POST", "/api/agents/join", {"token": "bkj_wrong", "request": request})
    (tmp_path / "agent").write_text(joined["certificate"])
    (tmp_path / "agent.key").write_text(own_key)
    role = {"roles": [{"role": "viewer", "scope": "/policy/other"}]}
    world.admin.ok("PUT", "/api/users/host-1", role)
    tls = Tls(certificate=tmp_path / "cert", key=tmp_path / "key", clients=authority.certificate)
    with running(world, tls=tls) as server:
        assert server.address.startswith("https://")
        if renewed:
            wait_for_certificate(server, put())
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        with httpx.Client(base_url=server.address, verify=trusting) as plain:
            answer = plain.get("/api/whoami", headers=bearer(world))
            assert (answer.status_code, "strict-transport-security" in answer.headers) == (200, True)
            assert plain.get("/api/whoami").status_code == 401
        trusting.load_cert_chain(tmp_path / "agent", tmp_path / "agent.key")
        with httpx.Client(base_url=server.address, verify=trusting) as agent:
            assert agent.get("/api/whoami").json()["name"] == "host-1"
            assert agent.get("/api/users").status_code == 403
            world.admin.ok("DELETE", "/api/agents/host-1")
            assert agent.get("/api/whoami").status_code == 401
        old = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(server.place) as link, pytest.raises(ssl.SSLError):
            old.wrap_socket(link, server_hostname="127.0.0.1")


def test_a_certificate_that_takes_the_place_of_another_is_shown_by_the_server_that_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_LOOK_TICKS", 1)
    authority = world.service.access.agents.authority

    def put() -> str:
        issued, key = authority.issue_server(["127.0.0.1"], clock=world.service.clock, life=CERTIFICATE_LIFE)
        (tmp_path / "new").write_text(key + issued.pem)
        (tmp_path / "new").replace(tmp_path / "cert")
        return issued.pem

    put()
    with running(world, tls=Tls(certificate=tmp_path / "cert", key=tmp_path / "cert")) as server:
        wait_for_certificate(server, put())


def wait_for_certificate(server: Running, pem: str) -> None:
    until = time.monotonic() + 20
    while ssl.get_server_certificate(server.place).strip() != pem.strip():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nobody_is_turned_away_while_a_certificate_takes_the_place_of_another(world: World, tmp_path: Path) -> None:
    authority, clock = world.service.access.agents.authority, world.service.clock
    made = [authority.issue_server(["127.0.0.1"], clock=clock, life=CERTIFICATE_LIFE) for _ in range(2)]
    place, warned = tmp_path / "cert", list[str]()

    def put(turn: int) -> None:
        issued, key = made[turn % 2]
        (tmp_path / "new").write_text(key + issued.pem)
        (tmp_path / "new").replace(place)

    put(0)
    shown = Shown(Tls(certificate=place, key=place), warned.append)
    over = threading.Event()

    def change() -> None:
        try:
            for turn in range(300):
                put(turn)
                shown.look()
        finally:
            over.set()

    thread = threading.Thread(target=change)
    thread.start()
    seen = set()
    try:
        while not over.is_set():
            seen.add(handshake(shown.context))
    finally:
        thread.join()
    assert warned == []
    assert seen == {ssl.PEM_cert_to_DER_cert(issued.pem) for issued, _ in made}


def handshake(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    unbelieving = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unbelieving.check_hostname, unbelieving.verify_mode = False, ssl.CERT_NONE
    client = unbelieving.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    server.do_handshake()
    return client.getpeercert(binary_form=True)


def test_a_certificate_that_cannot_be_used_is_told_before_anything_listens(world: World, tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("no certificate")
    for name in ("cert", "none"):
        with pytest.raises(InvalidRequest, match="certificate"):
            run(world.service, tls=Tls(certificate=tmp_path / name, key=tmp_path / name))
