"""An agent's own side: what it tells, and that no end gets lost, without a server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backstay.control.agents.home import Belonging, Home
from backstay.control.agents.reporting import MOST_LINES, Reporting, Told, plain_document
from backstay.control.agents.server import Server
from backstay.control.agents.work import Work
from backstay.control.agents.working import Agent
from backstay.control.runs.run import PolicyOutcome
from backstay.core.events import Progress, Started, Warned
from backstay.errors import (
    BackstayError,
    Forbidden,
    Interrupted,
    InvalidRequest,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    VersionUnsupported,
)
from backstay.testing import FakeClock
from backstay.trust.authority import Authority
from backstay.trust.certificate_requests import new_request

AWAY = ServerUnreachable("the server does not answer", cause="nobody is there")
WORK = {
    "name": "web",
    "policy": {"sources": [{"type": "filesystem", "paths": ["/srv"]}]},
    "timezone": "UTC",
    "kind": "incremental",
}
JOB = {"id": "01jdxxxxxxxxxxxxxxxxxxxxxx", "attempt": 1, "work": WORK}


class Scripted(Server):
    """Answers as it was told to, by the end of the path; the last answer of each comes again and again."""

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__(address="https://h")
        self.answers, self.heard = answers, list[tuple[str, Told]]()

    def call(self, method: str, path: str, body: object = None, *, timeout_s: float = 0) -> Any:
        del method, timeout_s
        word = path.rpartition("/")[2]
        assert isinstance(body, dict)
        self.heard.append((word, body))
        waiting = self.answers[word]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def ends(self) -> list[Told]:
        return [body for word, body in self.heard if word == "end"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found, (key, request) = Home.prepare(tmp_path / "agent"), new_request("x")
    issued = Authority.generate(FakeClock()).issue(request, "web-1", clock=FakeClock(), life=timedelta(days=7))
    found.joined(key, issued.pem, Belonging(server="https://h"))
    return found


def worked(
    home: Home, server: Scripted, run: Callable[[Reporting], PolicyOutcome], *, ends: int = 1
) -> tuple[list[str], Agent]:
    """What an agent warned of until it had told so many ends."""
    warned: list[str] = []

    def does(work: Work, reporting: Reporting, job_id: str, notices: list[str]) -> PolicyOutcome:
        assert (work.name, job_id, notices) == ("web", JOB["id"], [])
        return run(reporting)

    agent = Agent(
        home=home,
        server=server,
        run=does,
        clock=FakeClock(),
        random=lambda size: b"\x01" * size,
        warn=warned.append,
        say=lambda _: None,
        stopped=lambda: len(server.ends()) >= ends,
    )
    agent.work()
    return warned, agent


def fine(reporting: Reporting) -> PolicyOutcome:
    del reporting
    return PolicyOutcome(policy="web", dry_run=False)


def test_an_end_that_the_server_did_not_hear_is_told_again(home: Home) -> None:
    server = Scripted(work=[{"job": JOB}, {"job": None}], report=[{}], end=[AWAY, AWAY, {"accepted": True}])
    warned, _ = worked(home, server, fine, ends=3)
    assert [end["status"] for end in server.ends()] == ["succeeded"] * 3
    assert len([text for text in warned if "does not answer" in text]) == 1


def test_a_server_that_is_away_is_asked_again_with_pauses_and_told_of_once(home: Home) -> None:
    server = Scripted(work=[AWAY] * 8 + [{"job": JOB}, {"job": None}], report=[{}], end=[{"accepted": True}])
    warned, agent = worked(home, server, fine)
    assert [text for text in warned if "answer" in text] == [warned[0], "the server answers again"]
    assert isinstance(agent.clock, FakeClock)
    assert 8 < agent.clock.monotonic() < 8 * 90


def test_a_server_of_another_version_is_waited_for(home: Home) -> None:
    other = VersionUnsupported("this agent is too new for the server", hint="bring the server up to date first")
    server = Scripted(work=[other, other, {"job": JOB}, {"job": None}], report=[{}], end=[{"accepted": True}])
    warned, _ = worked(home, server, fine)
    assert warned[0].endswith("bring the server up to date first")
    assert server.ends()[0]["status"] == "succeeded"


@pytest.mark.parametrize("refusal", [Unauthorized("no"), Forbidden("no")])
def test_a_server_that_does_not_know_the_agent_ends_it(home: Home, refusal: BackstayError) -> None:
    with pytest.raises(type(refusal)):
        worked(home, Scripted(work=[refusal]), fine)


def test_a_job_ends_whatever_happens_in_it(home: Home) -> None:
    def breaks(reporting: Reporting) -> PolicyOutcome:
        raise ZeroDivisionError("oh")

    server = Scripted(work=[{"job": JOB}, {"job": None}], report=[{}], end=[{"accepted": True}])
    worked(home, server, breaks)
    end = server.ends()[0]
    assert (end["status"], end["error"]["code"]) == ("failed", "InternalError")


def test_a_result_that_the_server_never_takes_becomes_a_plain_failure(home: Home) -> None:
    refused = InvalidRequest("the request has mistakes")
    server = Scripted(work=[{"job": JOB}, {"job": None}], report=[{}], end=[refused, {"accepted": True}])
    worked(home, server, fine, ends=2)
    assert [(end["status"], "result" in end) for end in server.ends()] == [("succeeded", True), ("failed", False)]


def test_a_job_that_was_cancelled_says_so_and_one_that_was_given_back_says_nothing(home: Home) -> None:
    def heard(reporting: Reporting) -> PolicyOutcome:
        reporting.send()
        reporting.checkpoint()
        raise AssertionError("it was not interrupted")

    server = Scripted(work=[{"job": JOB}, {"job": None}], report=[{"cancel": True}], end=[{"accepted": True}])
    worked(home, server, heard)
    assert server.ends()[0]["status"] == "cancelled"
    second = Scripted(
        work=[{"job": JOB}, {"job": JOB}, {"job": None}],
        report=[{"lost": True}, {"cancel": True}],
        end=[{"accepted": True}],
    )
    warned, _ = worked(home, second, heard)
    assert len(second.ends()) == 1  # that of the second attempt
    assert "given back by the server" in warned[0]


# -- reports


def reporting(*answers: Any, stopped: bool = False) -> tuple[Reporting, list[Told]]:
    told, waiting = list[Told](), list(answers)

    def tell(report: Told) -> Told:
        told.append(report)
        answer = waiting.pop(0) if waiting else {}
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return Reporting(tell, FakeClock(), lambda: stopped), told


def test_what_did_not_arrive_is_sent_with_the_next_report_in_its_order() -> None:
    found, told = reporting(AWAY)
    found.events(Started(operation="backup", total_files=3))
    found.events(Progress(files=1, bytes=10, current="/a\x1b"))
    found.send()
    found.events(Warned(message="odd", path="/b"))
    found.send()
    assert [line["message"] for line in told[1]["lines"]] == ["backup began", "/b: odd"]
    assert told[1]["progress"] == {
        "stage": "backup",
        "files": 1,
        "bytes": 10,
        "total_files": 3,
        "total_bytes": None,
        "current": "/a ",
    }
    found.send()
    assert told[2] == {"progress": None, "lines": []}  # a sign of life
    assert found.untold()["lines"] == []


def test_a_log_has_an_end() -> None:
    found, _ = reporting()
    for number in range(MOST_LINES + 100):
        found.log("info", str(number))
    sent = 0
    while lines := found.untold()["lines"]:
        sent += len(lines)
        assert "left out" in lines[-1]["message"]
    assert sent <= MOST_LINES


@pytest.mark.parametrize(
    ("answer", "why"), [({"cancel": True}, "cancelled"), ({"lost": True}, "lost"), (NotFound("no job"), "lost")]
)
def test_what_the_server_says_ends_the_work_at_its_next_step(answer: Any, why: str) -> None:
    found, _ = reporting(answer)
    found.checkpoint()
    found.send()
    assert found.why == why
    with pytest.raises(Interrupted):
        found.events(Progress(files=1, bytes=1))


def test_a_signal_ends_the_work_too() -> None:
    found, _ = reporting(stopped=True)
    with pytest.raises(Interrupted, match="asked to stop"):
        found.checkpoint()
    assert found.why == "stopping"


def test_documents_are_made_plain() -> None:
    assert plain_document({"a": ["x\0y", ("\udcff", 1, None)]}) == {"a": ["x y", ["\\udcff", 1, None]]}
    assert len(plain_document("x" * 10_000)) == 4000
