"""Agents: how they join, how they are recognised over TLS, and how they are shut out."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

from backstay.api.tls import Shown, Tls, tls_context
from backstay.catalog.database import Catalog
from backstay.catalog.models import AgentCertificate
from backstay.control.access.access import Access
from backstay.control.access.authority_file import open_authority
from backstay.control.access.passwords import Passwords
from backstay.control.access.principal import the_machine
from backstay.control.access.server_certificate import LIFE, OwnCertificate, own_certificate
from backstay.core.clock import SystemClock
from backstay.errors import Forbidden, InvalidRequest, NotFound, RateLimited, Unauthorized
from backstay.testing import FakeClock
from backstay.trust.authority import Authority
from backstay.trust.certificate_requests import new_request
from tests.control.access.conftest import CHEAP
from tests.control.access.people import HERE, add, principal

MACHINE = the_machine()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.generate(FakeClock())


@pytest.fixture
def access(catalog: Catalog, clock: FakeClock, authority: Authority) -> Access:
    return Access(catalog, clock, passwords=Passwords(CHEAP), authority=authority)


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def invite(catalog: Catalog, access: Access, name: str = "host-7", **more: timedelta) -> str:
    with catalog.session() as session:
        return access.agents.invite(session, by=MACHINE, name=name, **more).text


def join(catalog: Catalog, access: Access, text: str, request: str | None = None) -> bytes:
    with catalog.session() as session:
        return der(access.agents.join(session, text, request or new_request("me")[1]).pem)


def refused(access: Access, certificate: bytes) -> str:
    with pytest.raises(Unauthorized) as caught:
        access.authenticate_certificate(certificate, HERE)
    return caught.value.reason


def test_an_agent_that_was_invited_joins_and_is_known(catalog: Catalog, access: Access) -> None:
    text = invite(catalog, access)
    assert text.startswith("bkj_")
    with catalog.session() as session:
        access.users.grant(session, by=MACHINE, name="host-7", role="operator", scope="/policy/files")
    found = access.authenticate_certificate(join(catalog, access, text), HERE)
    assert (found.name, found.kind, found.token_id, found.address) == ("host-7", "agent", None, HERE)
    assert found.scopes("backup:create") == ("/policy/files",)


def test_a_join_token_is_good_for_one_key(catalog: Catalog, access: Access) -> None:
    text = invite(catalog, access)
    request = new_request("me")[1]
    first = join(catalog, access, text, request)
    again = join(catalog, access, text, request)  # the answer was lost on its way
    assert first != again
    assert access.authenticate_certificate(again, HERE).name == "host-7"
    with pytest.raises(Unauthorized) as caught:
        join(catalog, access, text)
    assert caught.value.reason == "bad_join_token"


def test_two_that_join_with_one_token_at_once_do_not_both(catalog: Catalog, access: Access) -> None:
    text, start = invite(catalog, access), threading.Barrier(4)
    joined, out = [], []

    def agent() -> None:
        request = new_request("me")[1]
        start.wait()
        try:
            joined.append(join(catalog, access, text, request))
        except Unauthorized:
            out.append(1)

    threads = [threading.Thread(target=agent) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(joined), len(out)) == (1, 3)


def test_a_join_token_ends(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    text = invite(catalog, access, life=timedelta(minutes=5))
    clock.advance(300)
    for wrong in (text, text[:-1] + "~", "", "x" * 10_000, "bkj_"):
        with pytest.raises(Unauthorized) as caught:
            join(catalog, access, wrong)
        assert caught.value.reason == "bad_join_token"
    for life in (timedelta(0), timedelta(days=8)):
        with pytest.raises(InvalidRequest):
            invite(catalog, access, life=life)


def test_a_bad_request_does_not_use_the_token_up(catalog: Catalog, access: Access) -> None:
    text = invite(catalog, access)
    with pytest.raises(InvalidRequest):
        join(catalog, access, text, "nonsense")
    assert join(catalog, access, text)


def test_a_join_token_is_no_api_token_and_the_other_way_round(catalog: Catalog, access: Access) -> None:
    text = invite(catalog, access)
    with pytest.raises(Unauthorized):
        access.authenticate_bearer(text, HERE)
    first = access.ensure_administrator("bst_some_form_of_its_own_0123456789")
    assert first is None
    with pytest.raises(Unauthorized):
        join(catalog, access, "bst_some_form_of_its_own_0123456789")


def test_an_agent_renews_its_certificate_with_itself(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    certificate = join(catalog, access, invite(catalog, access))
    clock.advance(6 * 86400)
    by = access.authenticate_certificate(certificate, HERE)
    with catalog.session() as session:
        renewed = der(access.agents.renew(session, by=by, request=new_request("me")[1]).pem)
    clock.advance(2 * 86400)
    assert refused(access, certificate) == "bad_certificate"
    assert access.authenticate_certificate(renewed, HERE).user_id == by.user_id


@pytest.mark.parametrize("way", ["revoked", "disabled"])
def test_an_agent_that_is_shut_out_after_it_was_recognised_renews_nothing(
    catalog: Catalog, access: Access, way: str
) -> None:
    by = access.authenticate_certificate(join(catalog, access, invite(catalog, access)), HERE)
    with catalog.session() as session:
        if way == "revoked":
            access.agents.revoke(session, by=MACHINE, name="host-7")
        else:
            access.users.set_disabled(session, by=MACHINE, name="host-7")
    with catalog.session() as session, pytest.raises(Unauthorized):
        access.agents.renew(session, by=by, request=new_request("me")[1])


def test_nobody_else_gets_an_agents_certificate(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    invite(catalog, access)
    request = new_request("me")[1]
    for by in (MACHINE, principal(catalog, access, "root"), principal(catalog, access, "host-7")):
        with catalog.session() as session, pytest.raises(Forbidden):
            access.agents.renew(session, by=by, request=request)


def test_certificates_are_revoked_at_once(catalog: Catalog, access: Access) -> None:
    certificate, open_token = join(catalog, access, invite(catalog, access)), invite(catalog, access)
    access.authenticate_certificate(certificate, HERE)
    with catalog.session() as session:
        assert access.agents.revoke(session, by=MACHINE, name="host-7") == 1
    assert refused(access, certificate) == "bad_certificate"
    with pytest.raises(Unauthorized):
        join(catalog, access, open_token)
    new = join(catalog, access, invite(catalog, access))
    assert access.authenticate_certificate(new, HERE).name == "host-7"
    with catalog.session() as session:
        listed = access.agents.certificates(session, by=MACHINE, name="host-7")
        assert sorted(view.revoked_at is None for view in listed) == [False, True]
        with pytest.raises(NotFound):
            access.agents.revoke(session, by=MACHINE, name="nobody")


def test_an_agent_that_is_shut_out_is_refused(catalog: Catalog, access: Access) -> None:
    text = invite(catalog, access)
    certificate, later = join(catalog, access, text), invite(catalog, access)
    with catalog.session() as session:
        access.users.set_disabled(session, by=MACHINE, name="host-7")
    assert refused(access, certificate) == "disabled_user"
    with pytest.raises(Unauthorized):
        join(catalog, access, later)


def test_a_certificate_that_the_catalog_does_not_know_is_refused(
    catalog: Catalog, access: Access, clock: FakeClock, authority: Authority
) -> None:
    """As after its key was stolen together with the authority's."""
    certificate = join(catalog, access, invite(catalog, access))
    forged = authority.issue(new_request("x")[1], "host-7", clock=clock, life=timedelta(days=1))
    assert refused(access, der(forged.pem)) == "bad_certificate"
    assert refused(access, b"nonsense") == "bad_certificate"
    with catalog.session() as session:
        session.execute(update(AgentCertificate).values(fingerprint="0" * 64))
    assert refused(access, certificate) == "bad_certificate"


def test_who_tries_certificates_is_slowed_down(access: Access) -> None:
    for _ in range(60):
        refused(access, b"guess")
    with pytest.raises(RateLimited):
        access.authenticate_certificate(b"guess", HERE)


def test_who_invites_has_power_over_the_agent(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "part", ("admin", "/policy/a"))
    add(catalog, access, "ann", ("operator", "/"))
    invite(catalog, access, "narrow")
    invite(catalog, access, "wide")
    with catalog.session() as session:
        access.users.grant(session, by=MACHINE, name="narrow", role="viewer", scope="/policy/a")
        access.users.grant(session, by=MACHINE, name="wide", role="operator", scope="/")
    part, ann = principal(catalog, access, "part"), principal(catalog, access, "ann")
    with catalog.session() as session:
        agents = access.agents
        agents.invite(session, by=part, name="narrow")
        for by, name in ((part, "wide"), (part, "root"), (ann, "narrow"), (ann, "other")):
            with pytest.raises(Forbidden):
                agents.invite(session, by=by, name=name)
        for by, name in ((part, "wide"), (ann, "narrow"), (ann, "nobody")):
            with pytest.raises(Forbidden):
                agents.revoke(session, by=by, name=name)
        with pytest.raises(InvalidRequest):
            agents.invite(session, by=MACHINE, name="root")
        with pytest.raises(InvalidRequest):
            agents.invite(session, by=MACHINE, name="../up")


def test_an_agent_is_managed_by_whoever_manages_all_policies_that_it_runs(
    catalog: Catalog, clock: FakeClock, authority: Authority
) -> None:
    run_by = {"own": ["a"], "of-another": ["b"], "shared": ["a", "b"]}
    access = Access(catalog, clock, authority=authority, run_by=lambda agent: run_by.get(agent, ()))
    add(catalog, access, "part", ("admin", "/policy/a"))
    for name in ("of-another", "shared", "idle"):
        invite(catalog, access, name)
    part = principal(catalog, access, "part")
    with catalog.session() as session:
        access.agents.invite(session, by=part, name="own")
        assert access.agents.revoke(session, by=part, name="own") == 0
        for name in ("of-another", "shared", "idle", "new"):
            with pytest.raises(Forbidden):
                access.agents.invite(session, by=part, name=name)
        for name in ("of-another", "shared", "idle"):
            attempts: list[Callable[..., object]] = [
                access.agents.revoke,
                access.agents.certificates,
                access.users.set_disabled,
            ]
            for attempt in attempts:
                with pytest.raises(Forbidden):
                    attempt(session, by=part, name=name)
            with pytest.raises(Forbidden):
                access.tokens.create(session, by=part, name="x", user=name)


def test_where_there_is_no_authority_it_is_said(catalog: Catalog, clock: FakeClock) -> None:
    access = Access(catalog, clock, passwords=Passwords(CHEAP))
    with pytest.raises(InvalidRequest, match="agents cannot join here"):
        invite(catalog, access)


def test_the_authority_lies_in_a_file_of_its_owner(tmp_path: Path, clock: FakeClock) -> None:
    made = open_authority(tmp_path, clock)
    file = tmp_path / "authority.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_authority(tmp_path, clock).fingerprint == made.fingerprint
    file.chmod(0o640)
    with pytest.raises(InvalidRequest, match="others could read it"):
        open_authority(tmp_path, clock)
    file.chmod(0o600)
    file.write_text("nonsense")
    with pytest.raises(InvalidRequest, match="authority of the agents cannot be used"):
        open_authority(tmp_path, clock)
    with pytest.raises(InvalidRequest):
        open_authority(tmp_path / "missing", clock)


def test_of_two_that_make_an_authority_the_first_one_wins(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, generate = [], Authority.generate

    def slow(clock: FakeClock) -> Authority:
        monkeypatch.setattr(Authority, "generate", generate)
        first.append(open_authority(tmp_path, clock))  # another process, in the meantime
        return generate(clock)

    monkeypatch.setattr(Authority, "generate", slow)
    assert open_authority(tmp_path, clock).fingerprint == first[0].fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["authority.pem"]


def test_a_server_sees_the_agents_certificate_over_tls_1_3(catalog: Catalog, tmp_path: Path) -> None:
    """By Python's own TLS on both ends, with certificates that the authority made for both."""
    clock = SystemClock()
    authority = open_authority(tmp_path, clock)
    access = Access(catalog, clock, passwords=Passwords(CHEAP), authority=authority)
    key, request = new_request("me")
    text = invite(catalog, access)
    with catalog.session() as session:
        issued = access.agents.join(session, text, request)
    (tmp_path / "agent.pem").write_text(key + issued.pem)
    server, server_key = authority.issue_server(["127.0.0.1"], clock=clock, life=timedelta(days=1))
    (tmp_path / "server.pem").write_text(server_key + server.pem)

    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.minimum_version = ssl.TLSVersion.TLSv1_3
    serving.load_cert_chain(tmp_path / "server.pem")
    serving.load_verify_locations(cadata=authority.certificate)
    serving.verify_mode = ssl.CERT_OPTIONAL
    asking = ssl.create_default_context(cadata=authority.certificate)
    asking.load_cert_chain(tmp_path / "agent.pem")

    seen: list[bytes | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with serving.wrap_socket(connection, server_side=True) as secured:
                seen.append(secured.getpeercert(binary_form=True))
                secured.sendall(b".")

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listening.getsockname(), timeout=10) as plain,
            asking.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            assert secured.recv(1) == b"."
            assert secured.version() == "TLSv1.3"
        thread.join()
    assert seen[0] is not None
    assert access.authenticate_certificate(seen[0], "127.0.0.1").name == "host-7"


def test_a_server_can_have_a_certificate_of_its_own(tmp_path: Path, clock: FakeClock) -> None:
    authority = open_authority(tmp_path, clock)
    made = own_certificate(authority, tmp_path, ["backup.example.org", "::1"], clock=clock, random=os.urandom)
    assert made.stat().st_mode & 0o777 == 0o600
    first = made.read_bytes()
    again = own_certificate(authority, tmp_path, ["backup.example.org"], clock=clock, random=os.urandom)
    assert (again, again.read_bytes() != first) == (made, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem", "server.pem"]
    tls_context(Tls(certificate=made, key=made, clients=authority.certificate))
    with pytest.raises(InvalidRequest):
        own_certificate(authority, tmp_path / "missing", ["a"], clock=clock, random=os.urandom)


def test_a_server_that_runs_for_longer_than_its_certificate_is_valid_shows_a_new_one(
    tmp_path: Path, clock: FakeClock
) -> None:
    authority, warned = open_authority(tmp_path, clock), list[str]()
    own = OwnCertificate(authority, tmp_path, ["localhost"], clock=clock, random=os.urandom)
    tls = Tls(certificate=own.path, key=own.path, renew=own.renew)
    shown = Shown(tls, warned.append)

    def seen() -> bytes:
        asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
        ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = asking.wrap_bio(theirs, ours, server_hostname="localhost")
        server = shown.context.wrap_bio(ours, theirs, server_side=True)
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        return client.getpeercert(binary_form=True) or b""

    first = seen()
    shown.look()
    assert seen() == first
    clock.advance(LIFE.total_seconds() / 2)
    shown.look()
    second = seen()
    assert second != first
    clock.jump(-3 * 365 * 86400)  # it was wrong, and what was made by it is not valid yet
    shown.look()
    assert seen() not in (first, second)
    third = seen()
    own.path.write_text("half of one that somebody puts there")
    shown.look()
    shown.look()
    assert seen() == third
    assert len(warned) == 1
    assert "the old certificate is shown on" in warned[0]
