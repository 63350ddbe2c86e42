"""Whom a policy file wants told: a type with its fields, or an address of the notification library."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import AfterValidator, Discriminator, Tag

from backstay.control.policies.values import HIDDEN_ADDRESS, Model, Port, Text, Wrong, several, told_words

_SLACK: Final = re.compile(
    r"https://hooks\.slack(?:-gov)?\.com/services/([A-Za-z0-9]+)/([A-Za-z0-9]+)/([A-Za-z0-9]+)/?", re.ASCII
)
_MAIL: Final = re.compile(r"(?:[^@<>\r\n]*<)?[^@\s<>,;]+@[^@\s<>,;]+>?")
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s]+", re.ASCII | re.IGNORECASE)


class TargetPlace(Model):
    """Where messages go."""

    @abstractmethod
    def address(self) -> str:
        """The address as the notification library takes it. It may hold secrets."""


def _mail(text: str) -> str:
    if not _MAIL.fullmatch(text):
        raise Wrong(f"{text!r} is no address of mail", "write NAME@HOST")
    return text


def _web(url: str) -> str:
    """An address of the web. Raises Wrong, which does not repeat it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s\0]", url)
    except ValueError:
        whole = False
    if not whole:
        raise Wrong("this is no address of the web", "write https://HOST/PATH")
    return url


def _slack(url: str) -> str:
    if not _SLACK.fullmatch(url):
        raise Wrong("this is no webhook of Slack", "write https://hooks.slack.com/services/A/B/C")
    return url


def _apprise(address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise Wrong("this is no address for messages", "write for example discord://ID/TOKEN or ntfys://HOST/TOPIC")
    return address


Mail = Annotated[str, AfterValidator(_mail)]
WebAddress = Annotated[str, AfterValidator(_web)]


class EmailTarget(TargetPlace):
    """People who read mail, through a server that takes it."""

    type: Literal["email"]
    to: Annotated[tuple[Mail, ...], several(1)]
    sender: Mail
    server: Text
    port: Port | None = None
    user: Text | None = None
    password: Annotated[Text | None, HIDDEN_ADDRESS] = None
    tls: Literal["starttls", "tls", "none"] = "starttls"

    def address(self) -> str:
        who = quote(self.user or "", safe="")
        who += f":{quote(self.password, safe='')}" if self.password else ""
        host = f"[{self.server}]" if ":" in self.server else self.server
        place = f"{who}@{host}" if who else host
        port = f":{self.port}" if self.port is not None else ""
        mode = {"starttls": "starttls", "tls": "ssl", "none": "insecure"}[self.tls]
        options = {"to": ",".join(self.to), "from": self.sender, "mode": mode}
        return f"{'mailto' if self.tls == 'none' else 'mailtos'}://{place}{port}?{urlencode(options, quote_via=quote)}"


class SlackTarget(TargetPlace):
    """A channel of Slack, by its incoming webhook."""

    type: Literal["slack"]
    webhook: Annotated[str, AfterValidator(_slack), HIDDEN_ADDRESS]

    def address(self) -> str:
        found = _SLACK.fullmatch(self.webhook)
        assert found is not None  # checked when it was read
        return f"slack://{'/'.join(found.groups())}/?image=no&footer=no"


class WebhookTarget(TargetPlace):
    """A program that takes JSON by POST."""

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(_web), HIDDEN_ADDRESS]

    def address(self) -> str:
        parts = urlsplit(self.url)
        scheme = "jsons" if parts.scheme == "https" else "json"
        # What stands behind the question mark is the library's own, but for names that begin with a dash.
        given = parse_qsl(parts.query, keep_blank_values=True)
        query = urlencode([(f"-{name}", value) for name, value in given], quote_via=quote)
        return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")


class AddressTarget(TargetPlace):
    """Any service that the notification library knows."""

    type: Literal["apprise"] = "apprise"
    url: Annotated[str, AfterValidator(_apprise), HIDDEN_ADDRESS]

    def address(self) -> str:
        return self.url


TYPES: Final = ("email", "slack", "webhook", "apprise")
TYPES_HINT: Final = f"types are {told_words(TYPES)}"


def _which(data: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    kind = data.get("type") if isinstance(data, dict) else getattr(data, "type", None)
    return f"<{kind}>"


AnyTarget: TypeAlias = Annotated[
    Annotated[EmailTarget, Tag("<email>")]
    | Annotated[SlackTarget, Tag("<slack>")]
    | Annotated[WebhookTarget, Tag("<webhook>")]
    | Annotated[AddressTarget, Tag("<apprise>")],
    Discriminator(_which),
]
