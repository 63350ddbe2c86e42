"""`policy check`, `policy show`, `policy schema`, and the repository that a policy file names for all commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Account

POLICY = """\
backup_manager:
  storage: {{type: local, path: {root}/repository{more}}}
policies:
  files:
    sources:
      - type: filesystem
        paths: ["{root}/documents"]
    schedule: {{full: "0 0 * * *"}}
"""


@pytest.fixture
def configured(account: Account) -> Account:
    """An account whose BACKSTAY_CONFIG names a policy file."""
    write(account)
    account.environ["BACKSTAY_CONFIG"] = str(account.root / "backstay.yaml")
    return account


def write(account: Account, more: str = "", after: str = "") -> Path:
    file = account.root / "backstay.yaml"
    file.write_text(POLICY.format(root=account.root, more=more) + after)
    return file


def test_a_good_file_is_told_with_what_does_not_happen_by_itself(account: Account) -> None:
    file = write(account)
    done = account.run("policy", "check", file)
    assert done.out == (
        f"{file} is good: 1 policy\nits times are kept by `backstay serve`; else let cron call `backstay run POLICY`\n"
    )
    assert done.err == ""
    document = account.json("policy", "check", file)
    assert document["ok"] is True
    assert document["policies"] == ["files"]
    assert document["warnings"] == []
    assert document["next_times"]["files"]["full"].endswith("T00:00:00.000000Z")


def test_a_file_with_mistakes(account: Account) -> None:
    file = account.root / "bad.yaml"
    file.write_text("policies:\n  p:\n    sources:\n      - {type: filesystem, paths: [/x], exlude: [y]}\nz: 1\n")
    done = account.run("policy", "check", file, status=2)
    first, second, *told = done.err.splitlines()
    assert first == f"{file}:4: policies.p.sources[0].exlude: there is no such key (did you mean exclude?)"
    assert second.startswith(f"{file}:5: z: there is no such key")
    assert told[0] == f"error: {file} has 2 mistakes"
    problem = account.json("policy", "check", file, status=2)
    assert problem["code"] == "PolicyInvalid"
    assert problem["errors"][0] == {
        "file": str(file),
        "line": 4,
        "key": "policies.p.sources[0].exlude",
        "message": "there is no such key",
        "hint": "did you mean exclude?",
    }


def test_the_file_is_named_by_word_option_or_variable(configured: Account) -> None:
    other = configured.root / "other.yaml"
    other.write_text("policies: {}\n")
    assert configured.json("policy", "check")["policies"] == ["files"]
    assert configured.json("--config", other, "policy", "check")["policies"] == []
    assert configured.json("policy", "check", other)["policies"] == []
    del configured.environ["BACKSTAY_CONFIG"]
    assert "no policy file is named" in configured.run("policy", "check", status=2).err


def test_show_tells_files_and_single_policies(configured: Account) -> None:
    out = configured.run("policy", "show").out
    assert "    timezone: UTC  # built-in\n" in out
    assert "      - type: filesystem\n" in out
    (configured.root / "again.yaml").write_text(out)
    assert configured.run("policy", "show", configured.root / "again.yaml").out.count("policies:") == 1
    only = configured.json("policy", "show", "files")
    assert only["policies"]["files"]["schedule"]["full"] == {"value": "0 0 * * *", "from": "file"}
    configured.run("policy", "show", "nothing", status=1)


def test_the_schema_knows_every_key(account: Account) -> None:
    schema = json.loads(account.run("policy", "schema").out)
    assert schema["properties"].keys() == {"backup_manager", "policies"}
    assert schema["additionalProperties"] is False
    assert {"LocalStorage", "S3Storage", "Retention", "Hook", "CommandOrigin"} <= schema["$defs"].keys()


def test_all_commands_take_the_repository_of_the_file(configured: Account) -> None:
    place = configured.root / "repository"
    assert configured.run("list", status=10).err.endswith("hint:  `backstay run POLICY` creates it\n")
    done = configured.run("backup", configured.documents)
    assert done.err.count("Recovery key:") == 1
    assert (place / "repo.json").exists()
    assert not configured.repository.exists()
    assert len(configured.json("list")) == 1
    assert configured.json("verify")["ok"]
    elsewhere = {"BACKSTAY_REPO": str(configured.root / "elsewhere")}
    configured.run("list", env=elsewhere, status=10)
    configured.run("-r", configured.root / "elsewhere", "list", status=10)


def test_a_broken_file_is_told_by_all_commands_that_need_it(configured: Account) -> None:
    (configured.root / "backstay.yaml").write_text("a: 1\n")
    assert configured.json("list", status=2)["code"] == "PolicyInvalid"
    configured.run("-r", configured.root / "elsewhere", "list", status=10)


def test_the_limit_and_the_copies_of_the_file_hold(configured: Account) -> None:
    write(configured, more=f", max_size: 10TB, copies: [{{type: local, path: {configured.root}/copy}}]")
    configured.run("backup", configured.documents)
    stored = sorted(path.name for path in (configured.root / "copy").rglob("*") if path.is_file())
    assert "repo.json" in stored
    write(configured, more=f", max_size: 1k, copies: [{{type: local, path: {configured.root}/copy}}]")
    (configured.documents / "more").write_bytes(bytes(range(256)) * 400)
    assert configured.json("backup", configured.documents, status=14)["code"] == "QuotaExceeded"


def test_the_compression_of_the_file_holds(configured: Account) -> None:
    text = b"a line that is the same again and again, mostly\n"
    (configured.documents / "text").write_bytes(b"".join(text + str(n).encode() for n in range(20000)))
    small = configured.backup()["bytes_added"]
    file = configured.root / "backstay.yaml"
    lines = file.read_text().replace("policies:", "  compression: {algorithm: none}\npolicies:")
    file.write_text(lines.replace("/repository", "/second"))
    assert configured.backup()["bytes_added"] > 5 * small


def test_the_password_of_the_file_comes_from_outside(configured: Account) -> None:
    secret = configured.root / "secret"
    secret.write_text("hunter2\n")
    file = configured.root / "backstay.yaml"
    password = f"${{file:{secret}}}"
    file.write_text(file.read_text().replace("policies:", f"  encryption: {{password: '{password}'}}\npolicies:"))
    configured.run("backup", configured.documents)
    assert len(configured.json("list")) == 1
    secret.write_text("another\n")
    configured.run("list", status=12)
    assert "another" not in configured.run("policy", "show").out


def test_the_key_file_of_the_file_is_made_and_used(configured: Account) -> None:
    key = configured.root / "keys/mine.key"
    file = configured.root / "backstay.yaml"
    lines = f"  encryption: {{provider: key_file, key_file: {key}}}\npolicies:"
    file.write_text(file.read_text().replace("policies:", lines))
    configured.run("backup", configured.documents)
    assert key.stat().st_mode & 0o077 == 0
    assert len(configured.json("list")) == 1


def test_what_this_version_cannot_do_is_refused(configured: Account) -> None:
    file = configured.root / "backstay.yaml"
    lines = "  encryption: {provider: aws_kms, key_id: alias/k}\npolicies:"
    file.write_text(file.read_text().replace("policies:", lines))
    for command in (("run", "files"), ("list",)):
        problem = configured.json(*command, status=2)
        assert problem["code"] == "KeyProviderUnsupported"
        assert "provider: key_file" in problem["hint"]
    assert "refuses" in configured.run("policy", "check").err


@pytest.mark.parametrize("env", [{}, {"BACKSTAY_PASSWORD": "x"}], ids=["key file", "password"])
def test_an_unmounted_disk_gets_no_second_repository(configured: Account, env: dict[str, str]) -> None:
    configured.run("run", "files", env=env)
    place = configured.root / "repository"
    for mark in (configured.root / "home").rglob("*.made"):  # as if a crash had come before it
        mark.unlink()
    configured.run("run", "files", env=env)
    place.rename(configured.root / "unmounted")
    done = configured.run("run", "files", env=env, status=10)
    assert "mount the disk" in done.err
    assert not (place / "repo.json").exists()
    configured.run("init", env=env)
    configured.run("run", "files", env=env)
