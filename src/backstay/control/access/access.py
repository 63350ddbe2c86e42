"""Access: who somebody is, and whether they may. Everything that asks comes through here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.models import User
from backstay.control.access import authority as authorities
from backstay.control.access.agents import Agents
from backstay.control.access.claims import looks_like_jwt
from backstay.control.access.denied import unrecognised
from backstay.control.access.first_administrator import FirstToken, ensure_administrator
from backstay.control.access.passwords import Passwords
from backstay.control.access.permissions import Permission
from backstay.control.access.principal import Principal
from backstay.control.access.rate_limits import DEFAULT_RATES, LimitKind, Rate, RateLimits, rates_of
from backstay.control.access.recognition import principal_of, recognise_again, recognise_token
from backstay.control.access.sign_in import signed_in
from backstay.control.access.tokens import Tokens
from backstay.control.access.turns import take_turn
from backstay.control.access.users import RunBy, Users
from backstay.control.policies.access import AccessSettings, Oidc
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import CatalogUnavailable, ServerExtraMissing, Unauthorized
from backstay.trust.authority import Authority

if TYPE_CHECKING:
    from backstay.control.access.oidc import OidcTokens

_USE_NOTED_EVERY_S: Final = 60


class Access:
    """Recognises who asks, and decides. Callers record what was decided."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        *,
        random: Random = os.urandom,
        passwords: Passwords | None = None,
        rates: Mapping[LimitKind, Rate] = DEFAULT_RATES,
        authority: Authority | None = None,
        run_by: RunBy = lambda _agent: (),
    ) -> None:
        self._catalog, self._clock = catalog, clock
        self.passwords = passwords or Passwords()
        self.users = Users(clock, random, run_by)
        self.tokens = Tokens(clock, random, self.users)
        self.agents = Agents(clock, random, self.users, authority)
        self.audit = AuditLog(catalog, clock)
        self.limits = RateLimits(clock, rates)
        self._settings = AccessSettings()
        self._oidc: OidcTokens | None = None
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def ensure_administrator(
        self, preset: str | None, show: Callable[[FirstToken], None] = lambda _: None
    ) -> FirstToken | None:
        """See `first_administrator`; `preset` is BACKSTAY_ADMIN_TOKEN. A token that is returned is shown once."""
        return ensure_administrator(self._catalog, self.users, self.tokens, self._clock, preset=preset, show=show)

    def use(self, settings: AccessSettings | None) -> None:
        """Heed what a policy file says. Rates that did not change go on counting.

        Raises InvalidRequest for a scope that cannot be, ServerExtraMissing.
        """
        wanted = settings or AccessSettings()
        oidc = self._oidc
        if wanted.oidc != self._settings.oidc:
            oidc = None if wanted.oidc is None else _oidc_tokens(wanted.oidc, self._clock)
        if wanted.rate_limits != self._settings.rate_limits:
            self.limits = RateLimits(self._clock, rates_of(wanted.rate_limits))
        self._oidc, self._settings = oidc, wanted

    def authenticate_bearer(self, text: str, address: str) -> Principal:
        """Who a bearer token speaks for: one of ours, or one of the identity provider if there is one.

        Raises Unauthorized, RateLimited, CatalogUnavailable, IdentityProviderUnavailable.
        """
        if self._oidc is not None and looks_like_jwt(text):
            with self.slowing_guesses(address):
                claims = self._oidc.check(text)
            return signed_in(self._catalog, self.users, self.audit, claims, address=address)
        with self.slowing_guesses(address), self._catalog.looking() as connection:
            found = recognise_token(connection, text, address=address, now=self._clock.now())
        self._note_use(found.principal, found.last_used_at)
        return found.principal

    def authenticate_certificate(self, certificate: bytes, address: str) -> Principal:
        """Which agent a TLS client certificate (DER) belongs to. Raises Unauthorized, RateLimited, CatalogUnavailable.

        The server has seen that the client has the certificate's key; all else is checked here.
        """
        with self.slowing_guesses(address), self._catalog.reading() as session:
            return self.agents.recognise(session, certificate, address=address)

    def take_turn(self, session: Session, by: Principal) -> Principal:
        """For who changes what others may, or gets something that lasts: wait for those who do so too.

        What `by` may after that: somebody may have taken it away since it was recognised. Raises Unauthorized.
        """
        take_turn(session)
        return recognise_again(session, by, now=self._clock.now())

    @contextmanager
    def slowing_guesses(self, address: str) -> Iterator[None]:
        """Count what nobody is known by, and refuse an address that sends much of it. Raises RateLimited."""
        self.limits.look("unrecognised", address)
        try:
            yield
        except Unauthorized:
            self.limits.hit("unrecognised", address)
            raise

    def login(self, name: str, password: str, address: str) -> Principal:
        """Who has this name and password. Takes as long when there is no such user.

        Raises Unauthorized, RateLimited, CatalogUnavailable.
        """
        self.limits.hit("login_address", address)
        wanted = name[:65].lower()  # no name is so long
        self.limits.hit("login", f"{address} {wanted}")
        with self._catalog.reading() as session:
            user = session.scalar(select(User).where(User.name == wanted))
        kept = None if user is None else user.password_hash
        if not self.passwords.fits(password, kept) or user is None or kept is None:
            raise unrecognised("wrong_password")
        if self.passwords.is_outdated(kept):
            self._renew(user.id, kept, self.passwords.hash(password, user=user.name))
        with self._catalog.reading() as session:  # again: comparing took a while
            if (fresh := session.get(User, user.id)) is None:
                raise unrecognised("wrong_password")
            return principal_of(session, fresh, address=address)

    def check(self, principal: Principal, permission: Permission, scope: str) -> None:
        """Raise Forbidden unless this is allowed. Raises InvalidRequest for what is no scope."""
        authorities.demand(principal, permission, scope)

    def _note_use(self, principal: Principal, before: datetime | None) -> None:
        """Write when a token was used, once a minute. A catalog that cannot be written keeps nobody from reading."""
        now = self._clock.now()
        assert principal.token_id is not None
        with self._lock:
            latest = max(filter(None, (before, self._noted.get(principal.token_id))), default=None)
            if latest is not None and (now - latest).total_seconds() < _USE_NOTED_EVERY_S:
                return
            self._noted[principal.token_id] = now
        try:
            with self._catalog.session() as session:
                self.tokens.note_use(session, principal.token_id, now)
        except CatalogUnavailable:
            return

    def _renew(self, user_id: str, old: str, new: str) -> None:
        """Keep the password by today's parameters, unless it was changed in between."""
        with self._catalog.session() as session:
            user = session.get(User, user_id)
            if user is not None and user.password_hash == old:
                user.password_hash = new


def _oidc_tokens(settings: Oidc, clock: Clock) -> OidcTokens:
    try:
        from backstay.control.access.oidc import OidcTokens
    except ModuleNotFoundError as error:
        if error.name != "joserfc":
            raise
        raise ServerExtraMissing(
            "this installation knows nothing of identity providers",
            cause="the package joserfc is missing",
            hint="install it: `pip install 'backstay[server,oidc]'`, or take `oidc` out of the policy file",
        ) from error
    return OidcTokens(settings, clock)
