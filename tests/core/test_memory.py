"""How memory is kept and looked through."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: what it sets holds for all that comes later.
SCRIPT = """
import gc, weakref
from backstay.core.memory import tune_for_large_buffers

class Thing: ...

def lost():
    thing = Thing()
    thing.itself = thing
    tune_for_large_buffers()
    return weakref.ref(thing)

kept = lost()
gone = lost()
gc.collect()
print(kept() is not None, gone() is None)
"""


def test_what_becomes_garbage_after_the_first_of_several_operations_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")
