"""The program that archive_command runs: hands a file of pg_wal to `pg archive --serve`; 0 once it is durable.

A copy of this file lies beside the socket. The server's user runs it by `python3 -I -S`, without this package: so it
imports only what is built in, which saves milliseconds, and needs no more than Python 3.6. The file goes as an open
descriptor: the other side reads what this user may read, and nothing by its name.
"""

import _socket
import posix
import sys

PATIENCE_S = 40.0  # longer than the service takes to say that it is not done yet
ANSWER_BYTES = 4096
DURABLE = b"ok"


def main(arguments: "list[str]") -> int:
    """`CLIENT FILE [SECONDS]`; the socket has the client's own name, without `.py`."""
    if len(arguments) not in (2, 3):
        return refuse("archive_command must call it with %p, and nothing else")
    path, _, _ = arguments[0].rpartition(".py")
    patience = float(arguments[2]) if len(arguments) == 3 else PATIENCE_S
    try:
        name, files = opened(arguments[1])
    except OSError as error:
        return refuse(f"cannot read {arguments[1]}: {error.strerror}")
    try:
        answer = ask(path, name, files, patience)
    except (FileNotFoundError, ConnectionRefusedError):
        return refuse(f"nobody listens at {path}: `backstay pg archive --serve` does not run")
    except (TimeoutError, _socket.timeout):
        return refuse(f"no answer from {path} within {patience:g} s")
    except OSError as error:
        return refuse(f"cannot ask {path}: {error.strerror}")
    if answer == DURABLE:
        return 0
    return refuse(answer.decode("utf-8", "replace") or f"the process at {path} ended before it answered")


def opened(path: str) -> "tuple[str, list[int]]":
    """The file's name; the file, its directory and, where it can be read, the control file of the cluster."""
    directory, _, name = path.rpartition("/")
    above, _, _ = directory.rpartition("/")
    files = [
        posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK),  # no pipe is waited for
        posix.open(directory or ".", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY),
    ]
    try:
        files.append(
            posix.open(f"{above or '.'}/global/pg_control", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        )
    except OSError:
        return name, files  # segments name their cluster themselves; for others the service says what is missing
    return name, files


def ask(path: str, name: str, files: "list[int]", patience: float) -> bytes:
    """What the service answers; nothing if it ended."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    connection.settimeout(patience)
    connection.connect(path)
    descriptors = b"".join(file.to_bytes(4, sys.byteorder) for file in files)
    connection.sendmsg(
        [name.encode("utf-8", "surrogateescape")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)]
    )
    return connection.recv(ANSWER_BYTES)


def refuse(reason: str) -> int:
    """The server's log gets the reason; it tries again after every status below 126."""
    sys.stderr.write(f"backstay: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
