"""What a policy's `verification` asks of `run_verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backstay.control.policies.origins import ASKED
from backstay.control.policies.policy import Policy, Verification, sources_by_name
from backstay.control.policies.values import expanded
from backstay.control.runs.hooks import without_secrets
from backstay.core.sizes import parse_size
from backstay.core.times import parse_length
from backstay.operations.verify.run import VerifyOptions
from backstay.operations.verify.trial import Question, Trial, TriedCommand


def verify_options(
    wanted: Verification, name: str, policy: Policy, *, environ: Mapping[str, str], scratch: Path
) -> VerifyOptions:
    """For the policy of this name. `scratch` is where restores are tried if the file names no place."""
    place = scratch if wanted.scratch is None else Path(expanded(wanted.scratch, environ))
    return VerifyOptions(
        checks=wanted.checks,
        read_data=wanted.read_data / 100,
        min_bytes=None if wanted.min_bytes is None else parse_size(wanted.min_bytes),
        rehearse=place if wanted.restore_test else None,
        trial=trial_of(wanted, name, policy, environ=environ),
        reserve=True,
    )


def trial_of(wanted: Verification, name: str, policy: Policy, *, environ: Mapping[str, str]) -> Trial:
    """What a rehearsal of the policy's backups asks; programs get no password that they did not ask for.

    Questions that all policies share may be meant for the sources of another one.
    """
    origins = sources_by_name(name, policy)
    asked = tuple(dict.fromkeys(origin.snapshot_name(name) for origin in policy.sources if origin.type in ASKED))
    return Trial(
        questions=tuple(
            Question(sql=query.sql, expect=query.expect, name=snapshots, database=query.database)
            for query in wanted.queries
            if query.source is None or query.source in origins
            for snapshots in (asked if query.source is None else (origins[query.source].snapshot_name(name),))
        ),
        commands=tuple(
            TriedCommand(
                words=program.command,
                name=None if program.source is None else origins[program.source].snapshot_name(name),
                patience_s=parse_length(program.timeout).total_seconds(),
            )
            for program in wanted.commands
            if program.source is None or program.source in origins
        ),
        server=wanted.server,
        environ=without_secrets(environ),
    )
