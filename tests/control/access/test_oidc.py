"""Tokens of an identity provider: a real one on this machine, and all that must not be believed."""

from __future__ import annotations

import base64
import json
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.control.access.access import Access
from backstay.control.access.claims import subject_of
from backstay.control.access.oidc import OidcTokens
from backstay.control.access.principal import the_machine
from backstay.control.access.provider import Provider, fetch_document
from backstay.control.policies.access import AccessSettings, Oidc
from backstay.errors import IdentityProviderUnavailable, RateLimited, Unauthorized
from backstay.testing import FakeClock
from tests.control.access.identity_provider import IdentityProvider, new_ec, new_okp, new_rsa, provider, raw, shown
from tests.control.access.people import HERE, add, token

KEY, OTHER = new_rsa("one"), new_rsa("one")
ROLES = [
    {"group": "ops", "role": "operator", "scope": "/policy/files"},
    {"group": "ops", "role": "viewer", "scope": "/"},
    {"group": "boss", "role": "admin"},
]


@pytest.fixture
def idp() -> Iterator[IdentityProvider]:
    with provider() as running:
        running.keys = [KEY]
        yield running


def settings(idp: IdentityProvider, **more: Any) -> AccessSettings:
    oidc = {"issuer": idp.issuer, "audience": "backstay", "roles": ROLES, **more}
    return AccessSettings.model_validate({"oidc": oidc, "rate_limits": {"unrecognised": "100000/min"}})


@pytest.fixture
def known(access: Access, idp: IdentityProvider) -> Access:
    access.use(settings(idp))
    return access


def refused(access: Access, text: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        access.authenticate_bearer(text, HERE)
    assert caught.value.title == "nobody is known by these credentials"
    return caught.value.reason


def test_groups_become_roles(known: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    found = known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    assert (found.name, found.kind, found.token_id, found.address) == ("ann", "oidc", None, HERE)
    assert found.scopes("backup:create") == ("/policy/files",)
    assert found.scopes("backup:read") == ("/",)
    assert found.scopes("user:admin") == ()


def test_who_changes_rights_keeps_what_the_groups_gave(
    known: Access, catalog: Catalog, idp: IdentityProvider, clock: FakeClock
) -> None:
    found = known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    with catalog.session() as session:
        assert known.take_turn(session, found) == found
        known.users.set_disabled(session, by=the_machine(), name="ann")
    with catalog.session() as session, pytest.raises(Unauthorized):
        known.take_turn(session, found)


def test_the_keys_are_fetched_once(known: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    for _ in range(3):
        known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    assert idp.asked == ["/realm/.well-known/openid-configuration", "/realm/keys"]


@pytest.mark.parametrize("make", [new_ec, new_okp, lambda kid: new_rsa(kid, alg="PS256")], ids=["ES", "Ed", "PS"])
def test_other_algorithms_of_the_list_are_taken(
    access: Access, idp: IdentityProvider, clock: FakeClock, make: Any
) -> None:
    access.use(settings(idp, algorithms=["PS256", "ES256", "Ed25519"]))
    idp.keys = [make("two")]
    now = clock.now().timestamp()
    assert access.authenticate_bearer(idp.token(now), HERE).name == "ann"
    idp.keys.append(KEY)
    assert refused(access, idp.token(now, key=KEY)) == "bad_jwt"  # RS256 is not on the list


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "http://127.0.0.1/other"}, "bad_jwt"),
        ({"iss": None}, "bad_jwt"),
        ({"aud": "another"}, "bad_jwt"),
        ({"aud": ["another", "backstay2"]}, "bad_jwt"),
        ({"aud": {"backstay": 1}}, "bad_jwt"),
        ({"aud": None}, "bad_jwt"),
        ({"sub": None}, "bad_jwt"),
        ({"sub": ""}, "bad_jwt"),
        ({"sub": 7}, "bad_jwt"),
        ({"sub": "x" * 256}, "bad_jwt"),
        ({"exp": None}, "bad_jwt"),
        ({"exp": "tomorrow"}, "bad_jwt"),
        ({"exp": True}, "bad_jwt"),
        ({"exp": 1e300}, "bad_jwt"),
        ({"exp": 1767225600 - 60}, "expired_token"),
        ({"nbf": 1767225600 + 61}, "bad_jwt"),
        ({"nbf": "soon"}, "bad_jwt"),
        ({"iat": 1767225600 + 61}, "bad_jwt"),
        ({"nonce": "of a login"}, "bad_jwt"),
        ({"groups": 7}, "bad_jwt"),
    ],
)
def test_what_is_not_for_us_or_not_for_now_is_refused(
    known: Access, idp: IdentityProvider, clock: FakeClock, claims: dict[str, Any], reason: str
) -> None:
    assert clock.now().timestamp() == 1767225600
    assert refused(known, idp.token(1767225600, **claims)) == reason


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["another", "backstay"]},
        {"exp": 1767225600 - 59},
        {"nbf": 1767225600 + 59, "iat": 1767225600 + 59},
        {"groups": "ops"},
    ],
)
def test_clocks_may_differ_by_a_minute(known: Access, idp: IdentityProvider, claims: dict[str, Any]) -> None:
    assert known.authenticate_bearer(idp.token(1767225600, **claims), HERE).scopes("backup:read") == ("/",)


def test_no_other_key_is_believed(known: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    now = clock.now().timestamp()
    good = idp.token(now)
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    public = json.dumps(shown(KEY)).encode()
    shared = OctKey.import_key(public)
    forged = [
        idp.token(now, key=OTHER),  # the same key id
        idp.token(now, key=new_rsa("two")),
        idp.token(now, key=OTHER, header={"kid": None}),
        idp.token(now, key=OTHER, header={"jwk": shown(OTHER)}),
        idp.token(now, key=OTHER, header={"jku": "http://127.0.0.1:1/keys"}),
        raw({"alg": "none"}, claims),
        raw({"alg": "None", "kid": "one"}, claims),
        raw({"alg": "RS256", "kid": "one"}, claims),
        raw({"alg": "RS256", "kid": ["one"]}, claims, b"x"),
        jws.serialize_compact({"alg": "HS256", "kid": "one"}, json.dumps(claims), shared, algorithms=["HS256"]),
        f"{head}.{raw({}, {**claims, 'groups': ['boss']}).split('.')[1]}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
        idp.token(now, header={"crit": ["kid"]}),
        idp.token(now, header={"typ": "logout+jwt"}),
        raw(["RS256"], claims, b"x"),
        raw({"alg": ["RS256"]}, claims, b"x"),
        raw(b"\xff\xfe", b"\xff", b"x"),
        raw({"alg": "RS256", "kid": "one"}, b"[]", b"x"),
    ]
    for text in forged:
        assert refused(known, text) in ("bad_jwt", "unknown_token"), text
    assert known.authenticate_bearer(good, HERE).name == "ann"


def test_keys_that_are_too_short_or_for_something_else_are_passed_over(
    known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    with warnings.catch_warnings(action="ignore"):
        short = new_rsa("one", 1024)
    idp.keys = [short]
    assert refused(known, idp.token(clock.now().timestamp())) == "bad_jwt"
    documents = [
        {**shown(KEY), "use": "enc"},
        {**shown(KEY), "alg": "RS512"},
        {"kid": "one", "kty": "oct", "k": "AAAA"},
        {"kid": "one", "kty": "nonsense"},
        {"kid": "one"},
        {**shown(KEY), "n": 7},
        7,
    ]
    idp.answers["/realm/keys"] = 200, json.dumps({"keys": documents}).encode(), {}
    clock.advance(3601)
    assert refused(known, idp.token(clock.now().timestamp(), key=KEY)) == "bad_jwt"


def test_a_new_key_is_looked_for_but_not_for_every_stranger(
    known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    idp.keys.append(OTHER_ID)
    asked = len(idp.asked)
    for _ in range(5):
        refused(known, idp.token(clock.now().timestamp(), key=OTHER_ID))
    assert len(idp.asked) == asked  # it was asked less than a minute ago
    clock.advance(60)
    assert known.authenticate_bearer(idp.token(clock.now().timestamp(), key=OTHER_ID), HERE).name == "ann"
    assert len(idp.asked) == asked + 2


def test_a_key_that_the_provider_took_back_is_not_believed_for_long(
    known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    idp.keys = [OTHER_ID]
    clock.advance(3600)
    assert refused(known, idp.token(clock.now().timestamp(), key=KEY)) == "bad_jwt"


def test_while_the_provider_is_away_its_keys_are_used_for_a_day(
    known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    idp.answers["/realm/keys"] = 500, b"", {}
    clock.advance(86000)
    assert known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE).name == "ann"
    clock.advance(500)
    with pytest.raises(IdentityProviderUnavailable):
        known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/openid-configuration", (404, b"", {})),
        ("/.well-known/openid-configuration", (200, b"nonsense", {})),
        ("/.well-known/openid-configuration", (200, b"[]", {})),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "https://evil.example"}', {})),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "%s", "jwks_uri": "http://evil.example/k"}', {})),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "%s", "jwks_uri": "file:///etc/passwd"}', {})),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "%s", "jwks_uri": "https://[bad/x"}', {})),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "%s"}', {})),
        ("/.well-known/openid-configuration", (302, b"", {"Location": "/realm/elsewhere"})),
        ("/keys", (200, b"{}", {})),
        ("/keys", (200, b'{"keys": 7}', {})),
        ("/keys", (200, b" " * ((1 << 20) + 1), {})),
        ("/keys", (200, b"[" * 100_000, {})),
    ],
)
def test_a_provider_that_says_nonsense_is_told_as_such(
    known: Access, idp: IdentityProvider, clock: FakeClock, path: str, answer: tuple[int, bytes, dict[str, str]]
) -> None:
    status, body, headers = answer
    if b"%s" in body:
        body %= idp.issuer.encode()
    good = json.dumps({"issuer": idp.issuer, "jwks_uri": idp.issuer + "/keys"}).encode()
    idp.answers["/realm/elsewhere"] = 200, good, {}
    idp.answers["/realm" + path] = status, body, headers
    with pytest.raises(IdentityProviderUnavailable) as caught:
        known.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    assert caught.value.transient
    assert idp.issuer in str(caught.value)


def test_a_provider_that_is_not_there_keeps_nobody_else_out(
    catalog: Catalog, access: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    access.use(settings(idp, issuer="http://127.0.0.1:1/realm"))
    with pytest.raises(IdentityProviderUnavailable):
        access.authenticate_bearer(idp.token(clock.now().timestamp()), HERE)
    add(catalog, access, "bob", ("viewer", "/"))
    assert access.authenticate_bearer(token(catalog, access, "bob").text, HERE).name == "bob"


def test_a_login_has_its_nonce_and_no_other(idp: IdentityProvider, clock: FakeClock) -> None:
    oidc = settings(idp).oidc
    assert oidc is not None
    tokens, now = OidcTokens(oidc, clock), clock.now().timestamp()
    assert tokens.check(idp.token(now, nonce="n-1"), nonce="n-1").name == "ann"
    for nonce in ("n-2", None, 7):
        with pytest.raises(Unauthorized):
            tokens.check(idp.token(now, nonce=nonce), nonce="n-1")


def test_who_comes_for_the_first_time_gets_a_row_and_a_line_in_the_audit_log(
    catalog: Catalog, known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    now = clock.now().timestamp()
    first = known.authenticate_bearer(idp.token(now), HERE)
    again = known.authenticate_bearer(idp.token(now, preferred_username="renamed"), HERE)
    assert (first.user_id, first.name) == (again.user_id, again.name)
    with catalog.reading() as session:
        assert [(user.name, user.kind, user.roles) for user in known.users.all(session)] == [("ann", "oidc", ())]
    (entry,) = AuditLog(catalog, clock).page().items
    assert (entry.action, entry.object) == ("user.create", "user/ann")


@pytest.mark.parametrize(
    "name",
    [
        "bob",
        "BOB",
        "admin",
        "oidc-0123456789abcdef",
        "01hzy3v9k8" + "0" * 16,
        "a b",
        "\u0430dmin",
        "",
        "x" * 65,
        7,
        None,
    ],
)
def test_a_name_that_a_provider_says_takes_nobodys_place(
    catalog: Catalog, known: Access, idp: IdentityProvider, clock: FakeClock, name: Any
) -> None:
    add(catalog, known, "bob", ("admin", "/"), password="correct horse battery")
    found = known.authenticate_bearer(idp.token(clock.now().timestamp(), preferred_username=name), HERE)
    assert found.name == "oidc-" + subject_of(idp.issuer, "1234")[:16]
    assert found.scopes("user:admin") == ()


def test_subjects_are_told_apart(known: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    now = clock.now().timestamp()
    ids = {known.authenticate_bearer(idp.token(now, sub=sub), HERE).user_id for sub in ("1234", "1235", "1234 ", "É")}
    assert len(ids) == 4
    assert subject_of("a", "b c") != subject_of("a b", "c")


def test_who_is_shut_out_stays_out(catalog: Catalog, known: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    add(catalog, known, "root", ("admin", "/"))
    text = idp.token(clock.now().timestamp())
    known.authenticate_bearer(text, HERE)
    with catalog.session() as session:
        known.users.set_disabled(session, by=the_machine(), name="ann")
    assert refused(known, text) == "disabled_user"


def test_rights_of_a_group_end_with_the_providers_token(
    catalog: Catalog, known: Access, idp: IdentityProvider, clock: FakeClock
) -> None:
    """A token of the service that its member made may what was granted by name."""
    now = clock.now().timestamp()
    boss = known.authenticate_bearer(idp.token(now, groups=["boss"]), HERE)
    assert boss.scopes("user:admin") == ("/",)
    made = token(catalog, known, None, by=boss)
    assert known.authenticate_bearer(made.text, HERE).grants == ()
    with catalog.session() as session:
        known.users.grant(session, by=the_machine(), name="ann", role="viewer", scope="/policy/a")
    assert known.authenticate_bearer(made.text, HERE).scopes("backup:read") == ("/policy/a",)
    nobody = known.authenticate_bearer(idp.token(now, groups=[]), HERE)
    assert nobody.scopes("backup:read") == ("/policy/a",)


def test_without_a_provider_its_tokens_are_nothing(access: Access, idp: IdentityProvider, clock: FakeClock) -> None:
    text = idp.token(clock.now().timestamp())
    assert refused(access, text) == "unknown_token"
    access.use(settings(idp))
    assert access.authenticate_bearer(text, HERE).name == "ann"
    access.use(None)
    assert refused(access, text) == "unknown_token"


def test_what_a_policy_file_says_is_heeded_at_once(access: Access) -> None:
    access.use(AccessSettings.model_validate({"rate_limits": {"api": "1/10min"}}))
    access.limits.hit("api", "k")
    access.use(
        AccessSettings.model_validate({"rate_limits": {"api": "1/10min"}})
    )  # the same again: it goes on counting
    with pytest.raises(RateLimited, match="1 in 600 seconds"):
        access.limits.hit("api", "k")


class Slow:
    """A provider that answers when it is let."""

    def __init__(self, clock: FakeClock) -> None:
        self.let, self.asked, self.keys = threading.Event(), 0, [shown(KEY)]
        self.provider = Provider("https://id.example.org", clock, fetch=self._fetch, wait_s=0.01)

    def _fetch(self, address: str) -> bytes:
        self.asked += 1
        assert self.let.wait(10)
        if address.endswith("/keys"):
            return json.dumps({"keys": self.keys}).encode()
        return b'{"issuer": "https://id.example.org", "jwks_uri": "https://id.example.org/keys"}'

    def end(self) -> None:
        """Answer what was asked, and wait until that is known."""
        self.let.set()
        for thread in threading.enumerate():
            if thread.name == "backstay-provider":
                thread.join(10)


@pytest.fixture
def slow(clock: FakeClock) -> Iterator[Slow]:
    found = Slow(clock)
    yield found
    found.end()


def test_a_provider_that_says_nothing_keeps_nobody_waiting_and_is_asked_by_one_thread(
    slow: Slow, clock: FakeClock
) -> None:
    for _ in range(3):
        with pytest.raises(IdentityProviderUnavailable, match="not fetched yet"):
            slow.provider.keys("one")
        clock.advance(61)
    assert slow.asked == 1
    slow.end()
    assert [key["kid"] for key in slow.provider.keys("one")] == ["one"]


def test_kept_keys_answer_while_new_ones_are_fetched(slow: Slow, clock: FakeClock) -> None:
    slow.let.set()
    assert slow.provider.keys("one")
    slow.end()
    slow.let.clear()
    slow.keys.append(shown(OTHER_ID))
    clock.advance(3601)
    assert slow.provider.keys("one")
    with pytest.raises(IdentityProviderUnavailable, match="new key"):  # it may be one by the time it has answered
        slow.provider.keys("two")
    slow.end()
    assert slow.provider.keys("two")
    assert slow.provider.keys("three") == ()


def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(idp: IdentityProvider, clock: FakeClock) -> None:
    class Hasty(FakeClock):
        def monotonic(self) -> float:
            self.advance(40)
            return super().monotonic()

    idp.answers["/realm/keys"] = 200, b" " * 100_000, {}
    with pytest.raises(TimeoutError, match="no whole answer within 30 seconds"):
        fetch_document(idp.issuer + "/keys", Hasty())


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.example.org"},
        {"issuer": "https://"},
        {"issuer": "https://user:secret@id.example.org"},
        {"issuer": "https://id.example.org?x"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"audience": ""},
        {"roles": [{"group": "g", "role": "emperor"}]},
        {"roles": [{"group": "g", "role": "viewer", "scope": "/policies/x"}]},
        {"roles": [{"group": "g", "role": "viewer", "scope": "/policy/../x"}]},
        {"roles": [{"group": "g", "role": "viewer", "scope": "/policy/a/source/.."}]},
    ],
)
def test_settings_that_would_believe_too_much_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Oidc.model_validate({"issuer": "https://id.example.org", "audience": "backstay", **wrong})


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True)
)
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    clock = FakeClock()
    oidc = Oidc.model_validate({"issuer": "https://id.example.org", "audience": "backstay"})
    never = Provider(oidc.issuer, clock, fetch=lambda _: b'{"issuer": "https://id.example.org"}')
    with pytest.raises((Unauthorized, IdentityProviderUnavailable)):
        OidcTokens(oidc, clock, provider=never).check(text)


OTHER_ID = new_rsa("two")
