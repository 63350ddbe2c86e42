"""Secrets planted everywhere that a secret can come in by: they come out nowhere.

A real server is started with them, asked for everything that it can be asked for, told them in wrong places, and made
to fail; then all that it printed and answered, and all command lines, are searched.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from backstay.errors import CatalogUnavailable
from backstay.trust.certificate_requests import new_request
from tests.api.real_server import SOURCE, RealServer

POLICIES = """\
backup_manager:
  storage: {{type: local, path: {root}/repository}}
  scheduling: {{timezone: UTC}}
  notifications:
    targets:
      mail:
        {{type: email, to: [a@example.org], sender: b@example.org, server: 127.0.0.1, port: 1, tls: none, user: u,
         password: "${{MAIL}}"}}
      hook: {{type: webhook, url: "http://127.0.0.1:1/{hook_path}?key={hook_query}"}}
      chat: {{type: slack, webhook: "https://hooks.slack.com/services/A/B/{slack}"}}
      other: {{type: apprise, url: "jsons://u:${{APPRISE}}@127.0.0.1:1/"}}
    matchers:
      failures: {{targets: [mail, hook, other]}}
      never: {{targets: [chat], kinds: [worker_lost]}}
policies:
  files:
    sources:
      - {{type: filesystem, paths: ["{root}/src"]}}
    hooks:
      before:
        - command: [sh, -c, "test -n \\"$HOOK_SECRET\\""]
    notifications: {{ping: "http://127.0.0.1:1/{ping}"}}
  shop:
    sources:
      - {{type: postgresql, connection: "postgresql://u:${{POSTGRES}}@127.0.0.1:1/shop"}}
  crm:
    sources:
      - {{type: postgresql, connection: "postgresql://u:${{CRM}}@127.0.0.1:1/crm"}}
  old:
    sources:
      - {{type: mysql, connection: "mysql://u:${{MYSQL}}@127.0.0.1:1/old"}}
  kept:
    sources:
      - {{type: postgresql, connection: "postgresql://u:${{file:{root}/secret}}@127.0.0.1:1/kept"}}
"""
IN_FILE = ("hook_path", "hook_query", "slack", "ping")
IN_ENVIRONMENT = {
    "admin": "BACKSTAY_ADMIN_TOKEN",
    "repository": "BACKSTAY_PASSWORD",
    "hook": "HOOK_SECRET",
    "crm": "CRM",
    "mail": "MAIL",
    "apprise": "APPRISE",
    "postgres": "POSTGRES",
    "mysql": "MYSQL",
    "aws": "AWS_SECRET_ACCESS_KEY",
    "pgpassword": "PGPASSWORD",
}
SENT = (
    *("wrong_token", "basic", "query", "cookie", "jwt", "extra_field", "bad_json", "wrong_type", "long_password"),
    *("join_wrong", "idempotency", "user_password", "changed_password", "target", "changed_target", "bad_target"),
)
NAMES = (*IN_FILE, *IN_ENVIRONMENT, *SENT, "file")


def canary(name: str) -> str:
    """A text that stands nowhere else."""
    return f"canary{NAMES.index(name):02d}x{name.replace('_', '')}x9f3c71e5a8"


CANARY = {name: canary(name) for name in NAMES}


def plant(root: Path) -> None:
    (root / "src").mkdir()
    (root / "src/a").write_text("something")
    (root / "secret").write_text(CANARY["file"] + "\n")
    (root / "policies.yaml").write_text(POLICIES.format(root=root, **{name: CANARY[name] for name in IN_FILE}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealServer, dict[str, str]]:
    """The server after it has seen everything, and the secrets, with those that it made itself."""
    root = tmp_path_factory.mktemp("canaries")
    plant(root)
    environ = {variable: CANARY[name] for name, variable in IN_ENVIRONMENT.items()}
    made: dict[str, str] = {}
    options = ("--config", str(root / "policies.yaml"), "--tls-own", "127.0.0.1")
    with RealServer(root, *options, environ=environ) as server:
        _use(server, made)
        _misuse(server)
        _fail(server)
        _ask_everything(server)
    for name in ("authority", "server"):
        made[name + "_key"] = (root / f"data/{name}.pem").read_text().splitlines()[1]
    return server, CANARY | made


def admin(**more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {CANARY['admin']}", **more}


def _use(server: RealServer, made: dict[str, str]) -> None:
    """What tells a secret once, and what is told one."""

    def ok(method: str, path: str, body: object, once: str | None = None) -> Any:
        status, answer = server.call(method, path, body, headers=admin(), once=once)
        assert status in (200, 201, 202), answer
        return answer

    ok("POST", "/api/users", {"name": "ann", "password": CANARY["user_password"], "roles": [{"role": "viewer"}]})
    ok("PUT", "/api/users/ann", {"password": CANARY["changed_password"]})
    made["token"] = ok("POST", "/api/tokens", {"name": "one"}, once="token")["token"]
    made["others_token"] = ok("POST", "/api/tokens", {"name": "two", "user": "ann"}, once="token")["token"]
    made["join"] = ok("POST", "/api/agents", {"name": "host-7"}, once="token")["token"]
    target = {"name": "api", "address": f"json://u:{CANARY['target']}@127.0.0.1:1/"}
    ident = ok("POST", "/api/notifications/targets", target)["id"]
    changed = {"address": f"json://u:{CANARY['changed_target']}@127.0.0.1:1/"}
    ok("PUT", f"/api/notifications/targets/{ident}", changed)
    server.call("POST", f"/api/notifications/targets/{ident}/test", {}, headers=admin())
    key, request = new_request("host-7")
    joined = ok("POST", "/api/agents/join", {"token": made["join"], "request": request})
    agent = server.root / "agent.pem"
    agent.write_text(key + joined["certificate"])
    made["agent_key"] = key.splitlines()[1]
    status, whoami = server.call("GET", "/api/whoami", agent=agent)
    assert (status, whoami.get("code")) == (403, "Forbidden"), whoami  # it is known, and has no role
    ok("PUT", "/api/users/host-7", {"roles": [{"role": "viewer", "scope": "/policy/files"}]})
    status, whoami = server.call("GET", "/api/whoami", agent=agent)
    assert (status, whoami["name"]) == (200, "host-7")


def _misuse(server: RealServer) -> None:
    """Secrets in places where they do not belong."""
    users = "/api/users"
    for call in (
        ("GET", "/api/whoami", None, {"Authorization": f"Bearer {CANARY['wrong_token']}"}),
        ("GET", "/api/whoami", None, {"Authorization": f"Basic {CANARY['basic']}"}),
        ("GET", "/api/whoami", None, {"Authorization": f"Bearer eyJhbGciOiJub25lIn0.{CANARY['jwt']}.x"}),
        ("GET", "/api/whoami", None, {"Cookie": f"session={CANARY['cookie']}"}),
        ("GET", f"/api/backup/list?token={CANARY['query']}", None, admin()),
        ("POST", users, {"name": "bob", "passwort": CANARY["extra_field"]}, admin()),
        ("POST", users, {"name": "bob", "password": [CANARY["wrong_type"]]}, admin()),
        ("POST", users, f'{{"name": "bob", "password": "{CANARY["bad_json"]}"'.encode(), admin()),
        ("POST", users, {"name": "bob", "password": CANARY["long_password"] * 9}, admin()),
        ("POST", users, {"name": "bob"}, admin(**{"Idempotency-Key": CANARY["idempotency"]})),
        ("POST", "/api/agents/join", {"token": CANARY["join_wrong"], "request": "x"}, {}),
        ("POST", "/api/agents/join", {"token": CANARY["join_wrong"], "request": new_request("x")[1]}, {}),
        ("POST", "/api/notifications/targets", {"name": "bad", "address": CANARY["bad_target"]}, admin()),
        ("POST", "/api/notifications/targets", {"name": "bad", "address": f"x://{CANARY['bad_target']}"}, admin()),
    ):
        method, path, body, headers = call
        status, answer = server.call(method, path, body, headers=headers)
        assert status < 500, answer


def _fail(server: RealServer) -> None:
    """Jobs that end well and that fail for a secret that does not open anything."""
    jobs = []
    for policy in ("files", "shop", "crm", "old", "kept"):
        status, job = server.call("POST", "/api/backup/create", {"policy": policy}, headers=admin())
        assert status == 202, job
        jobs.append((job["id"], "succeeded" if policy == "files" else "failed"))
    until = time.monotonic() + 60
    for job_id, expected in jobs:
        while (job := server.call("GET", f"/api/backup/jobs/{job_id}", headers=admin())[1])["status"] != expected:
            assert job["status"] in ("queued", "running"), job
            assert time.monotonic() < until, job
            time.sleep(0.1)
        server.call("GET", f"/api/backup/jobs/{job_id}/log", headers=admin())
    time.sleep(1.0)  # messages of it are tried meanwhile


def _ask_everything(server: RealServer) -> None:
    """Every list, and every item of it."""
    paths = server.call("GET", "/api/openapi.json")[1]["paths"]
    lists = [path for path, methods in paths.items() if "get" in methods and "{" not in path]
    for path in lists:
        if path == "/api/events":  # does not end
            continue
        _, answer = server.call("GET", path, headers=admin())
        for item in answer.get("items", ()) if isinstance(answer, dict) else ():
            for name in ("id", "name"):
                if isinstance(item, dict) and name in item:
                    server.call("GET", f"{path}/{quote(str(item[name]))}", headers=admin())


def test_there_are_enough_canaries() -> None:
    assert len(set(CANARY.values())) == len(NAMES) >= 30


def test_no_secret_is_answered(world: tuple[RealServer, dict[str, str]]) -> None:
    server, secrets = world
    said = "\n".join(server.answers)
    assert re.search(r"backup_auth_denied_total[^ ]*unknown_token[^ ]* [1-9]", said), re.findall(
        r"backup_auth_denied[^ ]* [0-9.]+", said
    )
    assert "shop" in said
    assert [name for name, secret in secrets.items() if secret in said] == []


def test_no_secret_is_printed(world: tuple[RealServer, dict[str, str]]) -> None:
    server, secrets = world
    assert [name for name, secret in secrets.items() if secret in server.printed] == []


def test_no_secret_is_on_a_command_line(world: tuple[RealServer, dict[str, str]]) -> None:
    server, secrets = world
    assert len(server.lines) > 1  # its own, and those of hooks and dumps
    assert [name for name, secret in secrets.items() if any(secret.encode() in line for line in server.lines)] == []


def test_what_is_only_compared_is_kept_nowhere(world: tuple[RealServer, dict[str, str]]) -> None:
    """Of tokens and passwords there are digests; of what was wrong there is nothing."""
    server, secrets = world
    kept = b"".join(path.read_bytes() for path in (server.root / "data").rglob("*") if path.is_file())
    kept += b"".join(path.read_bytes() for path in (server.root / "home").rglob("*") if path.is_file())
    compared = {*SENT, *IN_ENVIRONMENT, "token", "others_token", "join", "agent_key"} - {"target", "changed_target"}
    compared -= {"mail", "apprise"}  # where messages go, which the catalog knows
    compared -= {"idempotency"}  # a key of that kind is kept for a day, for the repetition that it is for
    assert b"$argon2id$" in kept
    assert [name for name in sorted(compared) if secrets[name].encode() in kept] == []


def test_a_database_that_does_not_answer_does_not_give_its_password_away(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "backstay", "-v", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE)}
    environ["BACKSTAY_DATABASE"] = "postgresql://u:canaryinurl@127.0.0.1:1/x"
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == CatalogUnavailable.exit_status
    assert "Traceback" in done.stderr
    assert "canaryinurl" not in done.stdout + done.stderr
