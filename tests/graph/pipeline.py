"""Functions that processes, workers and clusters import; what they do is told by the design intent of their node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.recompute import recomputes
from tests.graph.worlds import CAPABILITY, joined


@recomputes("tests.join")
def join(node: Node, inputs: Inputs) -> Any:
    """What `World.make` does, in any process; `design_intent` may name a mishap."""
    print("functions may print", flush=True)
    parts = [part.bytes() for part in inputs.values()]
    match node.metadata.design_intent.split():
        case ["raise"]:
            raise ZeroDivisionError("no luck")
        case ["hang"]:
            time.sleep(60)
        case ["hang-with-child", place]:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            Path(place).write_text(str(child.pid))
            time.sleep(60)
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["die-once", place] if not Path(place).exists():
            Path(place).touch()
            os._exit(7)
        case ["wrong"]:
            return b"wrong"
        case ["none"]:
            return object()
        case ["large"]:
            return iter([bytes(1 << 20)] * 2)
        case ["interleave"]:
            first, second = (value.open() for value in inputs.values())
            start = first.read(10)
            return start + second.read(10) + first.read() + second.read(5)
        case ["process"]:
            return {"pid": os.getpid()}
    return joined(node.id, parts)


assert CAPABILITY != "tests.join"
