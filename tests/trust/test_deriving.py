"""Passphrases that several threads use at once."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, threading
from backstay.trust.secrets import Secret
from backstay.trust.slots import Argon2Cost, _wrapping_key

secret, salt, found = Secret.passphrase("x"), os.urandom(32), []

def derive():
    for _ in range(4):
        found.append(_wrapping_key(secret, salt, Argon2Cost(memory_kib=1024, iterations=1, lanes=4)))

threads = [threading.Thread(target=derive, daemon=True) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 24 and len(set(found)) == 1, len(found)
"""


def test_several_threads_may_derive_keys_at_once() -> None:
    """In a process of its own: without a lock OpenSSL's threads wait for each other for ever."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
