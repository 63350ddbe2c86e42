"""Key slots opened by several threads."""

from __future__ import annotations

import threading

from backstay.trust.secrets import Secret
from backstay.trust.slots import unwrap, wrap


def test_threads_that_open_slots_at_once_do_not_wait_for_each_other_for_ever() -> None:
    secret, root, header = Secret.passphrase("a password of some length"), bytes(32), bytes(range(32))
    slot = wrap(secret, root, header, created="2026-11-29T00:00:00+00:00", note="")
    opened: list[object] = []
    threads = [threading.Thread(target=lambda: opened.append(unwrap(slot, secret)), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert opened == [(root, header)] * 3
