"""From a notice to the text that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backstay.control.notifying.notices import Notice, NoticeKind
from backstay.control.policies.notifications import Severity

_MOST = 4000  # characters of a body; some services cut what is longer, or refuse it


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A text for one target. The same `id` may come twice: a receiver that cares can tell."""

    id: str
    severity: Severity
    kind: NoticeKind
    policy: str | None
    title: str
    body: str


def title_of(notice: Notice) -> str:
    """One line: how bad it is, and what it is."""
    word = "resolved" if notice.resolved else notice.severity
    return " ".join(f"[Backstay] {word}: {notice.title}".split())


def body_of(notice: Notice, message_id: str) -> str:
    """What happened, why, what to do, and what it is about."""
    text = "\n".join(_lines(notice))
    if len(text) > _MOST:
        text = f"{text[:_MOST]} …"
    return f"{text}\n\nMessage: {message_id}"


def _lines(notice: Notice) -> Iterator[str]:
    yield notice.title
    if notice.body:
        yield ""
        yield notice.body
    if notice.cause:
        yield f"Cause: {notice.cause}"
    if notice.solution and not notice.resolved:
        yield f"What to do: {notice.solution}"
    about = {"Policy": notice.policy, "Schedule": notice.schedule}
    if notice.subject != notice.policy:
        about = {"About": notice.subject, **about}
    if any(about.values()):
        yield ""
    for word, value in about.items():
        if value:
            yield f"{word}: {value}"
