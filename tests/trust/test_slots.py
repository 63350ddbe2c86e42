"""Key slots, opened by several threads at once: a service opens its repository for each job."""

from __future__ import annotations

import os
import threading

from backstay.trust.secrets import Secret
from backstay.trust.slots import Argon2Cost, unwrap, wrap


def test_a_slot_is_opened_by_many_threads_at_once() -> None:
    root, repository = os.urandom(32), os.urandom(32)
    cost = Argon2Cost(memory_kib=8 << 10, iterations=1)
    slot = wrap(Secret.passphrase("x"), root, repository, created="2026-11-01T00:00:00Z", note="", cost=cost)
    opened: list[object] = []

    def opening() -> None:
        opened.extend(unwrap(slot, Secret.passphrase("x")) for _ in range(8))

    threads = [threading.Thread(target=opening, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)  # one that hangs in the library cannot be waited for
    assert opened == [(root, repository)] * 64
