"""An FTP server as a program: `python ftp_server.py PORT DIRECTORY USER PASSWORD [CERTIFICATE]`."""

from __future__ import annotations

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, ThrottledDTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

port, directory, user, password, *certificate = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, directory, perm="elradfmwMT")
handler = TLS_FTPHandler if certificate else FTPHandler
handler.authorizer = authorizer
if certificate:
    handler.certfile = certificate[0]
    handler.tls_control_required = handler.tls_data_required = True
else:

    class Slow(ThrottledDTPHandler):  # type: ignore[misc] # so that there is time to be killed in a transfer
        read_limit = write_limit = 2 << 20

    handler.dtp_handler = Slow

ThreadedFTPServer(("127.0.0.1", int(port)), handler).serve_forever()
