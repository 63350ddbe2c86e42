"""Messages by real mail, webhook, Slack and ping, to servers of this machine."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from urllib.parse import urlsplit

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from apprise.plugins.slack import NotifySlack

from backstay.control.notifying.messages import Message
from backstay.control.notifying.notices import KINDS
from backstay.control.notifying.sending import NetworkSender, redacted
from backstay.errors import NotificationFailed
from tests.control.notifying.sink import Sink
from tests.control.policies.files import loaded
from tests.ports import free_port

BODY = "the backup of <shop> failed\nCause: no & room *at all*, <!channel>\n\nMessage: m1"
MESSAGE = Message(
    id="m1", severity="error", kind="backup_failed", policy="shop", title="[Backstay] error: bäckup <b>", body=BODY
)
SLACK = "TAAAAAAAA/BBBBBBBBB/CCCCCCCCCCCCCCCCCCCCCCCC"


class Letters:
    """A mail server's letter box."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        parsed = message_from_bytes(content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        self.got.append((envelope.rcpt_tos, parsed))
        return "250 taken"


@pytest.fixture
def letters() -> Iterator[tuple[Letters, int]]:
    box = Letters()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


def address_of(target: str) -> str:
    """The address that a target of a policy file has."""
    file = f"backup_manager: {{notifications: {{targets: {{t: {target}}}}}}}"
    notifications = loaded(file).content.backup_manager.notifications
    assert notifications is not None
    return notifications.targets["t"].address()


def test_mail(letters: tuple[Letters, int]) -> None:
    box, port = letters
    target = (
        "{type: email, to: [admin@example.com, 'Ops <ops@example.com>'], sender: backup@example.com, "
        f"server: 127.0.0.1, port: {port}, tls: none}}"
    )
    NetworkSender().send(MESSAGE, address_of(target))
    assert [to for to, _ in box.got] == [["admin@example.com"], ["ops@example.com"]]
    mail = box.got[0][1]
    assert (mail["Subject"], mail["From"]) == (MESSAGE.title, "backup@example.com")
    assert (mail["X-Backstay-Message"], mail["X-Backstay-Kind"]) == ("m1", "backup_failed")
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().strip().splitlines() == BODY.splitlines()


def test_a_webhook_gets_json_with_what_programs_look_for(sink: Sink) -> None:
    NetworkSender().send(MESSAGE, address_of(f"{{type: webhook, url: 'http://u:p@{sink.place}/hook?token=x%20y'}}"))
    ((method, path, headers, data),) = sink.got
    assert (method, path) == ("POST", "/hook?token=x+y")
    assert headers["Authorization"].startswith("Basic ")
    document = json.loads(data)
    assert document.items() >= {
        "title": MESSAGE.title,
        "message": BODY,
        "type": "failure",
        "message_id": "m1",
        "severity": "error",
        "kind": "backup_failed",
        "policy": "shop",
    }.items()  # fmt: skip


def test_slack(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{sink.place}/services")
    NetworkSender().send(MESSAGE, address_of(f"{{type: slack, webhook: 'https://hooks.slack.com/services/{SLACK}'}}"))
    ((_, path, _, data),) = sink.got
    assert path == f"/services/{SLACK}"
    text = data.decode()
    assert "bäckup" in json.dumps(json.loads(text), ensure_ascii=False)
    assert "Cause: no" in text
    assert "<!channel>" not in text  # nobody is called by what a message tells
    assert "http" not in text  # no pictures, no links to anywhere


@pytest.mark.parametrize(("answer", "taken"), [(200, True), (204, True), (404, False), (500, False), (302, False)])
def test_a_ping_is_fetched(sink: Sink, answer: int, taken: bool) -> None:
    sink.answer = answer
    if taken:
        NetworkSender().send(MESSAGE, f"ping+http://{sink.place}/hunter2")
    else:
        with pytest.raises(NotificationFailed, match=rf"ping\+http://\*\*\*: the server answered {answer}"):
            NetworkSender().send(MESSAGE, f"ping+http://{sink.place}/hunter2")
    assert [(method, path) for method, path, _, _ in sink.got] == [("GET", "/hunter2")]


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200, b"HTTP/1.1 200 OK\r\nX: ", b""],
    ids=["no HTTP", "too much", "without end", "nothing"],
)
def test_a_server_that_speaks_nonsense_or_never_ends_fails_one_ping(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backstay.control.notifying.sending._LONGEST_S", 0.5)
    stop = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(said)
            while said.endswith(b" ") and not stop.wait(0.05):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        with pytest.raises(NotificationFailed):
            NetworkSender().send(MESSAGE, f"ping+http://127.0.0.1:{listening.getsockname()[1]}/hunter2")
        stop.set()
        thread.join()


@pytest.fixture
def log_of_all() -> Iterator[io.StringIO]:
    """What a program would log that logs all it is told."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


REFUSED = [
    "json://hunter2:secret99@127.0.0.1:1/path77",
    "mailto://hunter2:secret99@127.0.0.1:1?to=path77@example.com&from=a@example.com&mode=insecure",
    "ping+http://127.0.0.1:1/hunter2?secret99=path77",
    "nothing://hunter2/secret99/path77",
]


@pytest.mark.parametrize("address", REFUSED)
def test_a_failure_tells_why_and_nothing_of_the_address_nor_does_any_log(
    address: str, log_of_all: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotificationFailed) as caught:
        NetworkSender().send(MESSAGE, address)
    out, err = capfd.readouterr()
    told = f"{caught.value} {caught.value.hint} {log_of_all.getvalue()} {out} {err}"
    assert caught.value.cause
    for secret in ("hunter2", "secret99", "path77"):
        assert secret not in told


def test_a_message_that_was_taken_leaves_nothing_of_its_address_in_any_log(sink: Sink, log_of_all: io.StringIO) -> None:
    NetworkSender().send(MESSAGE, f"json://hunter2:secret99@{sink.place}/path77")
    assert len(sink.got) == 1
    for secret in ("hunter2", "secret99", "path77"):
        assert secret not in log_of_all.getvalue()


def test_a_refused_webhook_does_not_follow_where_it_is_sent(sink: Sink) -> None:
    sink.answer = 302
    with pytest.raises(NotificationFailed):
        NetworkSender().send(MESSAGE, f"json://{sink.place}/hook")
    assert len(sink.got) == 1


def test_what_is_told_of_a_failure_has_no_part_of_the_address() -> None:
    address = "https://us%65r77:pass@host.example/token?key=value9&to=x"
    text = "host.example did not take token of user77 (value9): to x, pass"
    assert redacted(text, address) == "*** did not take *** of *** (***): to x, ***"


def test_kinds_of_policy_files_are_those_there_are() -> None:
    kinds = ", ".join(kind for kind in KINDS if kind != "test")
    file = (
        "backup_manager: {notifications: {targets: {t: {type: apprise, url: 'json://x'}}, "
        f"matchers: {{m: {{targets: [t], kinds: [{kinds}]}}}}}}}}"
    )
    assert loaded(file).content.backup_manager.notifications is not None
    assert urlsplit(address_of("{type: apprise, url: 'json://x'}")).scheme == "json"
