"""The words between a program and its workers: lines of JSON on a pair of pipes, some with bytes behind them.

A frame is one JSON object on a line. If it has the field `bytes`, so many raw bytes follow.

| frame | from | means |
|---|---|---|
| `hello` with `version` | both | what follows is this protocol; the worker's has its `capabilities` |
| `task` with `node`, `capability`, `function` | asker | make this node; `function` is `module:name`, or null |
| `need` with `dep` | worker | send the output of a dependency |
| `piece` with `bytes` | both | a part of an output, at most a MiB |
| `end` | asker | all of that input was sent |
| `lost` | asker | that input cannot be read |
| `done` | worker | all of the node's output was sent |
| `failed` with `title`, `cause` | worker | it could not be made |

A function is named only where both sides share their code. One task at a time. A worker whose input ends ends itself at
once, whatever it is at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, Final

from backstay.errors import WorkerLost

VERSION: Final = 1
PIECE: Final = 1 << 20  # bytes of one part at most
LINE: Final = 64 << 20  # bytes of a line at most: a node may have 100 000 dependencies
Frame = dict[str, Any]


def send(out: IO[bytes], kind: str, data: bytes | memoryview | None = None, **fields: object) -> None:
    """Write one frame. Raises OSError, ValueError when the other side is gone."""
    frame: Frame = {"type": kind, **fields}
    if data is not None:
        frame["bytes"] = len(data)
    out.write(json.dumps(frame).encode() + b"\n")
    if data is not None:
        out.write(data)
    out.flush()


def send_pieces(out: IO[bytes], pieces: Iterator[bytes]) -> None:
    """Write an output as frames of its parts."""
    for piece in pieces:
        whole = memoryview(piece)
        for at in range(0, len(whole), PIECE):
            send(out, "piece", whole[at : at + PIECE])


def receive(source: IO[bytes]) -> tuple[Frame, bytes]:
    """Read one frame and its bytes; raises WorkerLost when there is none, or it makes no sense."""
    line = source.readline(LINE)
    if not line:
        raise WorkerLost("the other side of a worker's pipe is gone")
    try:
        frame = json.loads(line)
        kind, length = frame["type"], frame.get("bytes", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _nonsense(line) from error
    if not line.endswith(b"\n") or not isinstance(kind, str) or type(length) is not int or not 0 <= length <= PIECE:
        raise _nonsense(line)
    data = source.read(length) if length else b""
    if len(data) != length:
        raise WorkerLost("the other side of a worker's pipe went away in the middle of an answer")
    return frame, data


def _nonsense(line: bytes) -> WorkerLost:
    return WorkerLost(
        "what came through a worker's pipe is none of its words",
        cause=f"it begins with {line[:80]!r}",
        hint="its command must write nothing else to standard output: look for greetings in shell profiles",
    )
