"""An FTP server as a program: `python ftp_server.py PORT DIRECTORY USER PASSWORD [CERTIFICATE]`.

FTP_HOST and FTP_DATA_PORT say where it listens, if not on 127.0.0.1, and where for transfers: with these a proxy can
stand before both.
"""

from __future__ import annotations

import os
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, ThrottledDTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

port, directory, user, password, *certificate = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, directory, perm="elradfmwMT")
handler = TLS_FTPHandler if certificate else FTPHandler
handler.authorizer = authorizer
handler.auth_failed_timeout = 0
if certificate:
    handler.certfile = certificate[0]
    handler.tls_control_required = handler.tls_data_required = True
else:

    class Slow(ThrottledDTPHandler):  # type: ignore[misc] # so that there is time to be killed in a transfer
        read_limit = write_limit = 2 << 20

    handler.dtp_handler = Slow

if data_port := os.environ.get("FTP_DATA_PORT"):
    handler.passive_ports = [int(data_port)]

    class Impatient(FTPHandler.passive_dtp):  # type: ignore[misc] # while one waits for its client, others get ports with no proxy
        timeout = 2

    handler.passive_dtp = Impatient
ThreadedFTPServer((os.environ.get("FTP_HOST", "127.0.0.1"), int(port)), handler).serve_forever()
