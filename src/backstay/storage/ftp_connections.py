"""Control connections to one FTP server: each used by one call at a time, replaced when they are dead."""

from __future__ import annotations

import contextlib
import ftplib
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import BackstayError, InsufficientSpace, StorageRefused, StorageUnavailable
from backstay.storage.address import Address
from backstay.storage.logins import Login, where_logins_belong
from backstay.storage.paced_sockets import begin_exchange, pace_socket, paced
from backstay.storage.patience import Patience
from backstay.storage.tls import advice, client_context, is_broken

_PORT: Final = 21
_LINES: Final = 8192
_LAST_WORD_S: Final = 5.0
_CODE: Final = re.compile(r"\d{3}")
_FULL: Final = ("452", "552")
_NOT_LOGGED_IN: Final = ("530", "532")
_UNKNOWN: Final = ("500", "502", "504")


_GARBLED: Final = (ValueError, OverflowError)  # what ftplib raises for numbers that are none, or too large


class Ftp(ftplib.FTP):
    """On paced sockets. A command, its transfer and its answer are one exchange.

    Answers are read here and not through a file: their text may be in any encoding, and what has come without being
    asked for must be seen.
    """

    _unread = b""

    def connect(
        self, host: str = "", port: int = 0, timeout: float = -999, source_address: tuple[str, int] | None = None
    ) -> str:
        self.host, self.port, self.timeout = host, port, timeout
        self.sock = pace_socket(socket.create_connection((host, port), timeout, source_address))
        self.af = self.sock.family
        self.welcome = self.getresp()
        return self.welcome

    def has_spoken(self) -> bool:
        """Whether there is an answer that nobody has asked for: it would be taken for that to the next command."""
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
        return bool(self._unread) or pending

    def putline(self, line: str) -> None:
        if self.has_spoken():
            raise ftplib.error_proto("it answers more than it was asked")  # noqa: S321 - an exception, no call
        begin_exchange()
        super().putline(line)

    def raise_refusal(self) -> None:
        """After a transfer broke off: raise the answer in which the server says why, if it does."""
        assert self.sock is not None
        if self._unread or select.select([self.sock], [], [], _LAST_WORD_S)[0]:
            with contextlib.suppress(OSError, EOFError):  # it has gone away altogether, which the transfer told
                self.voidresp()

    def getline(self) -> str:
        assert self.sock is not None
        while b"\n" not in self._unread:
            if len(self._unread) > self.maxline:
                raise ftplib.error_proto(f"a line of more than {self.maxline} bytes")  # noqa: S321 - an exception
            piece = self.sock.recv(_LINES)
            if not piece:
                raise EOFError
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r").decode(errors="backslashreplace")

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        plain, size = super().ntransfercmd(cmd, rest)
        return pace_socket(plain), size


class _TlsFtp(Ftp, ftplib.FTP_TLS):
    """Takes the control connection's TLS session for data too: vsftpd and others insist on it."""

    def auth(self) -> str:
        answer = super().auth()
        self._unread = b""  # whatever came before TLS may be anybody's word
        return answer

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        plain, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 - TLS is put on it below
        try:
            session = self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
            return self.context.wrap_socket(plain, server_hostname=self.host, session=session), size
        except BaseException:
            plain.close()
            raise


class FtpConnections:
    """Lends connections that are logged in, in binary mode, with data encrypted for `ftps`."""

    def __init__(self, address: Address, login: Login | None, *, clock: Clock, patience: Patience) -> None:
        self._address = address
        self._clock, self._patience = clock, patience
        self._login = login
        self._idle: list[Ftp] = []
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Ftp]:
        """For one call. ftplib.error_perm stays, of which the caller knows more; all else is StorageUnavailable."""
        with paced(self._patience, self._clock):
            yield from self._lent()

    def _lent(self) -> Iterator[Ftp]:
        ftp = self._take()
        try:
            yield ftp
        except (ftplib.error_perm, BackstayError):
            self._give_back(ftp)  # a refusal is an answer: the connection is in order
            raise
        except (OSError, EOFError, ftplib.Error, *_GARBLED) as error:
            ftp.close()  # what it would say next may belong to the call that failed
            raise self._lost(error) from error
        except BaseException:
            ftp.close()
            raise
        else:
            self._give_back(ftp)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for ftp in idle:
            _quit(ftp)

    def _take(self) -> Ftp:
        """An idle one that is alive; looked at before anything is sent, so that no request is sent twice."""
        while True:
            with self._lock:
                ftp = self._idle.pop() if self._idle else None
            if ftp is None:
                return self._connect()
            if ftp.sock is not None and not ftp.has_spoken() and not select.select([ftp.sock], [], [], 0)[0]:
                return ftp
            ftp.close()  # it has something to say although nobody asked: goodbye

    def _give_back(self, ftp: Ftp) -> None:
        with self._lock:
            self._idle.append(ftp)

    def _connect(self) -> Ftp:
        address, login = self._address, self._login
        ftp = _TlsFtp(context=client_context()) if address.scheme == "ftps" else Ftp()
        try:
            ftp.connect(address.host, address.port or _PORT, timeout=self._patience.silence)
            ftp.login(login.user if login else "anonymous", login.password if login else "backstay@")  # after AUTH TLS
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
            ftp.voidcmd("TYPE I")
            with contextlib.suppress(ftplib.error_perm):  # most servers tell these without being asked
                ftp.voidcmd("OPTS MLST type;size;modify;")
        except (OSError, EOFError, ftplib.Error, *_GARBLED) as error:
            ftp.close()
            raise self._no_entry(error) from error
        return ftp

    def _no_entry(self, error: Exception) -> BackstayError:
        place = self._address.place
        if isinstance(error, ssl.SSLError) and not is_broken(error):
            return self._distrusted(error)
        if isinstance(error, ftplib.error_perm):
            if self._address.scheme == "ftps" and code_of(error) in _UNKNOWN:
                return StorageRefused(
                    f"{place} has no TLS", cause=str(error), hint="use ftp: only if you trust the network"
                )
            return StorageRefused(f"{place} does not let us in", cause=str(error), hint=where_logins_belong("FTP"))
        return self._lost(error)

    def _distrusted(self, error: ssl.SSLError) -> BackstayError:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        return StorageRefused(
            f"{self._address.place} cannot be trusted",
            cause=why or str(error),
            hint=advice(error),
        )

    def _lost(self, error: Exception) -> BackstayError:
        if isinstance(error, ssl.SSLCertVerificationError):  # of a data connection
            return self._distrusted(error)
        if isinstance(error, EOFError):
            cause = "it closed the connection"
        elif isinstance(error, OSError):
            cause = error.strerror or str(error)
        elif isinstance(error, _GARBLED):
            cause = f"its answer makes no sense: {error}"
        else:
            cause = str(error)
        if code_of(error) in _FULL:
            return InsufficientSpace(f"{self._address.place} takes no more", cause=cause)
        hint = "check the address, the network, and that the FTP server runs and allows so many connections"
        return StorageUnavailable(f"{self._address.place} does not answer as it should", cause=cause, hint=hint)


def code_of(error: Exception) -> str:
    """The number that a server's answer begins with, or nothing."""
    found = _CODE.match(str(error)) if isinstance(error, ftplib.Error) else None
    return found[0] if found else ""


def refusal(title: str, error: ftplib.error_perm) -> BackstayError:
    """The error for a refusal that its caller has no better word for."""
    code = code_of(error)
    if code in _FULL:
        return InsufficientSpace(title, cause=str(error))
    if code in _NOT_LOGGED_IN:
        return StorageRefused(title, cause=str(error), hint="check what this user may do on the server")
    if code in _UNKNOWN:
        hint = "use another server: MLST, MLSD, SIZE and REST (RFC 3659) are needed, as all common ones have them"
        return StorageRefused(title, cause=f"the server lacks a command: {error}", hint=hint)
    return StorageUnavailable(title, cause=str(error), hint="check the permissions on the server")


def _quit(ftp: Ftp) -> None:
    with contextlib.suppress(OSError, EOFError, ftplib.Error):
        ftp.quit()
    ftp.close()
