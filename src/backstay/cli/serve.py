"""`serve`: interface, schedules and jobs in one process, or one of many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.extras import server_extra
from backstay.cli.options import flag, option
from backstay.cli.render import err, local_time
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP, leave, options_of, started
from backstay.core.environment import variable
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.api.tls import Tls
    from backstay.control.access.first_administrator import FirstToken
    from backstay.control.service.service import Service

PORT = 8377


def serve(
    ctx: typer.Context,
    host: Annotated[str, option("ADDRESS", "Listen here; off this machine only with TLS.", show_default=True)] = (
        "127.0.0.1"
    ),
    port: Annotated[int, option("N", "0 for any free one.", min=0, max=65535, show_default=True)] = PORT,
    data_dir: Annotated[Path | None, option("DIR", DATA_DIR_HELP)] = None,
    database: Annotated[str | None, option("URL", DATABASE_HELP)] = None,
    no_worker: Annotated[bool, flag("Run no jobs: `backstay worker` does, here or elsewhere.", "--no-worker")] = False,
    tls_cert: Annotated[Path | None, option("FILE", "The certificate and its chain, in PEM.")] = None,
    tls_key: Annotated[Path | None, option("FILE", "The key of the certificate.")] = None,
    tls_own: Annotated[
        list[str] | None,
        option("HOST", "Make a certificate for this name or address, by the own authority; repeatable."),
    ] = None,
    restore_root: Annotated[
        list[Path] | None,
        option("DIR", "Restores that are asked for by the interface write below this only; repeatable."),
    ] = None,
    restore_database: Annotated[
        list[str] | None,
        option("URL", "Such restores may go to this database, or all of this server, besides; repeatable."),
    ] = None,
) -> int:
    """Serve the REST interface, run what is scheduled, and run jobs, until a signal ends it.

    All of it is in this one process, with files in the data directory. With --database, any number of `serve` and
    `worker` processes share the work.
    """
    with server_extra("backstay serve"):
        from backstay.api.backing import ApiOptions
        from backstay.api.database_addresses import parse_allowed
        from backstay.api.server import run
        from backstay.control.jobs.queues import QUEUES

        context = context_of(ctx)
        options = options_of(context, data_dir, database, () if no_worker else tuple(QUEUES), alone=False)
        _check_no_worker(no_worker, embedded=options.embedded)
        _check_tls(tls_cert, tls_key, tls_own)
        allowed = tuple(map(parse_allowed, restore_database or ()))
        preset = variable(context.environ, "BACKSTAY_ADMIN_TOKEN")
        with started(context, options) as service:
            if preset is not None:
                service.access.ensure_administrator(preset)
                service.sign_audit_log()  # the first administrator is an entry
            run(
                service,
                host=host,
                port=port,
                tls=_tls(service, tls_cert, tls_key, tls_own),
                options=ApiOptions(
                    restore_roots=tuple(path.absolute() for path in restore_root or ()),
                    restore_databases=allowed,
                ),
                ready=lambda address: _ready(context, service, address, has_preset=preset is not None),
            )
    return leave(0)


def _check_no_worker(no_worker: bool, *, embedded: bool) -> None:
    if no_worker and embedded:
        raise InvalidRequest(
            "without a worker nobody would run jobs",
            cause="the data directory belongs to one process, and that one is told to run none",
            hint="leave --no-worker out, or give --database postgresql://… and start `backstay worker`",
        )


def _check_tls(certificate: Path | None, key: Path | None, own: list[str] | None) -> None:
    if (certificate is None) != (key is None):
        raise InvalidRequest(
            "TLS needs a certificate and its key",
            cause="only a part of it is given",
            hint="give --tls-cert FILE and --tls-key FILE",
        )
    if certificate is not None and own:
        raise InvalidRequest(
            "a server has one certificate",
            cause="one is given, and another one is to be made",
            hint="give --tls-cert and --tls-key, or --tls-own",
        )


def _tls(service: Service, certificate: Path | None, key: Path | None, own: list[str] | None) -> Tls | None:
    """TLS as it was asked for; agents show certificates of our own authority."""
    from backstay.api.tls import Tls
    from backstay.control.access.server_certificate import OwnCertificate

    authority = service.access.agents.authority
    if own:
        made = OwnCertificate(authority, service.data_dir, own, clock=service.clock, random=service.random)
        return Tls(certificate=made.path, key=made.path, clients=authority.certificate, renew=made.renew)
    if certificate is None or key is None:
        return None
    return Tls(certificate=certificate, key=key, clients=authority.certificate)


def _ready(context: Context, service: Service, address: str, *, has_preset: bool) -> None:
    """Tell where it is. A first administrator is made only if somebody can see the token, which is shown once."""

    def show(first: FirstToken) -> None:
        _told(context, service, address, first)

    if not has_preset and service.access.ensure_administrator(None, show) is not None:
        service.sign_audit_log()
        return
    _told(context, service, address, None)


def _told(context: Context, service: Service, address: str, first: FirstToken | None) -> None:
    """Where it is, once it answers."""
    document: dict[str, Any] = {
        "address": address,
        "data_dir": str(service.data_dir),
        "policy_file": None if service.options.config is None else str(service.options.config),
        "worker": service.engine.worker if service.options.queues else None,
        "token": None if first is None else first.text,
    }
    context.result(document, lambda: _show(context, service, address, first))
    sys.stdout.flush()  # whoever reads a pipe waits for this


def _show(context: Context, service: Service, address: str, first: FirstToken | None) -> None:
    context.say(f"Backstay serves {address}")
    context.say(f"data directory: {service.data_dir}")
    context.say(f"policy file:    {service.options.config or 'none: give --config FILE for policies and schedules'}")
    context.say(f"jobs:           {'run here' if service.options.queues else 'run by `backstay worker`'}")
    for run in service.next_runs(3):
        context.say(f"next run:       {local_time(run.at)}  {run.policy} ({run.type})")
    if first is not None:
        for line in (
            "",
            f"    Token of {first.user}:  {first.text}",
            "",
            "It may do everything, and is not shown again: keep it, or make others by the interface.",
            "",
        ):
            err(line)
