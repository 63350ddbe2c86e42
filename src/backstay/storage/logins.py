"""User names and passwords for remote stores: from the environment or from `~/.netrc`, never from addresses."""

from __future__ import annotations

import netrc
from collections.abc import Mapping
from dataclasses import dataclass, field

from backstay.core.environment import expanded_if_known
from backstay.errors import InvalidRequest
from backstay.storage.address import Address


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a server."""

    user: str
    password: str = field(repr=False)


def find_login(address: Address, kind: str, environment: Mapping[str, str]) -> Login | None:
    """BACKSTAY_<kind>_PASSWORD, else the entry of the host in `~/.netrc` (or the file that NETRC names), else None.

    A user name in the address wins over BACKSTAY_<kind>_USER, and only an entry of that user fits.
    """
    user = address.user or environment.get(f"BACKSTAY_{kind}_USER")
    password = environment.get(f"BACKSTAY_{kind}_PASSWORD")
    if password is not None:
        if user is None:
            raise InvalidRequest(
                f"BACKSTAY_{kind}_PASSWORD is set, but whose password it is is not",
                hint=f"put the user name into the address, or into BACKSTAY_{kind}_USER",
            )
        return Login(user, password)
    return _from_netrc(address.host, user, environment)


def where_logins_belong(kind: str) -> str:
    """A hint for whoever has none, or has put it in the wrong place."""
    return f"put it into ~/.netrc (machine HOST login USER password …), or set BACKSTAY_{kind}_PASSWORD"


def _from_netrc(host: str, user: str | None, environment: Mapping[str, str]) -> Login | None:
    path = expanded_if_known(environment.get("NETRC", "~/.netrc"))
    try:
        found = netrc.netrc(str(path)).authenticators(host)
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        cause = f"line {error.lineno} makes no sense"  # the message itself may quote a password
        raise InvalidRequest(f"{path} cannot be used", cause=cause, hint="mend that line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read", cause=type(error).__name__, hint="check its owner") from None
    if found is None or (user is not None and found[0] != user):
        return None
    return Login(found[0], found[2] or "")
