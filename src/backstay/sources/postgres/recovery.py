"""What turns a restored data directory into one that recovers: settings, and what hands WAL to its server.

PostgreSQL documentation, "Continuous Archiving and Point-in-Time Recovery" and "Archive Recovery". The server asks for
one file after the other; every answer but success and "there is no more" must stop it, because it would take an
error for the end of the WAL and go on without what is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

STAGED: Final = "backstay_wal"  # the directory with the WAL, within the data directory
FETCH: Final = "get"  # the script in it
SIGNAL: Final = "recovery.signal"
STANDBY: Final = "standby.signal"  # makes a server follow another one, and never end to recover
SETTINGS: Final = "postgresql.auto.conf"
PLANNED: Final = "segments"  # the names of all that it needs, if they are not staged but brought
WISHES: Final = "wishes"  # the directory of those that are waited for
ENDED: Final = "ended"  # why nobody brings any more
_TURN_S: Final = "0.02"
_TURNS: Final = 1500  # after so many, at least 30 s, a wish that nobody took says that nobody is there
_STOP: Final = 126  # an exit status up to 125 means to PostgreSQL that there is no more WAL


def settings(target: Mapping[str, str], *, timeline: int, port: int | None = None) -> str:
    """Lines for postgresql.auto.conf, which count more than what stands above them."""
    given = {
        "restore_command": f'sh {STAGED}/{FETCH} "%f" "%p"',
        # It is gone at once, whatever is put there meanwhile.
        "recovery_end_command": f"mv {STAGED} {STAGED}.done && rm -rf {STAGED}.done",
        "recovery_target_timeline": str(timeline),
        "primary_conninfo": "",  # a copy of a standby must not follow its primary
        "primary_slot_name": "",
        **{name: "" for name in _TARGETS if name not in target},
        **target,
        # What a server or a standby was told for a recovery of its own does not hold for this one.
        "recovery_target_inclusive": "on",
        "recovery_min_apply_delay": "0",
        "archive_cleanup_command": "",
        **({} if port is None else {"port": str(port)}),
    }
    lines = ["# recovery from a backup, written by backstay"]
    lines += [f"{name} = {_quoted(value)}" for name, value in given.items()]
    return "\n" + "\n".join(lines) + "\n"


def place_settings(data: Path, present: Collection[str]) -> str:
    """Lines for the end of a postgresql.conf that comes from elsewhere: the server uses what lies in `data` alone.

    `present` are the files that came with it.
    """
    places = {"hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}
    given = {
        "data_directory": str(data),
        **{name: str(data / file) for name, file in places.items() if file in present},
        "external_pid_file": "",
    }
    lines = [
        "# places of this copy, written by backstay",
        *(f"{name} = {_quoted(value)}" for name, value in given.items()),
    ]
    return "\n" + "\n".join(lines) + "\n"


# All are written, those that are not used as empty: one left over from an earlier recovery would be a second target.
_TARGETS: Final = (
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_xid",
    "recovery_target_name",
)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def fetch_script(last_segment: str) -> str:
    """A shell script that hands out the staged WAL, of which `last_segment` is the last file."""
    return f"""# Written by backstay: hands the WAL that lies beside this file to a server that recovers.
# Status 1 says that the WAL ends here; anything that should be there and is not must stop the server (status {_STOP}).
here=${{0%/*}}
if [ -f "$here/$1" ]; then
  cp "$here/$1" "$2" && exit 0
  exit {_STOP}
fi
case "$1" in
  *[!0-9A-F]*) exit 1 ;; # histories of timelines that were not asked for
esac
segment=${{1#????????}}
for other in "$here"/????????"$segment"; do
  [ -f "$other" ] && exit 1 # it lies on another timeline, for which the server asks next
done
expr "X$segment" \\> "X{last_segment[8:]}" >/dev/null && exit 1
exit {_STOP}
"""


def stream_script(last_segment: str) -> str:
    """A shell script that hands out WAL which a program puts there meanwhile; `last_segment` is the last planned one.

    It wishes for what is not there by a file in WISHES. The program removes that at once, as a sign that it is
    there, and the script repeats it now and then: a wish that stays says that the program is gone. What the program
    has to say before it ends lies in ENDED.
    """
    return f"""# Written by backstay: hands WAL to a server that recovers, as `backstay pg fetch` brings it.
# Status 1 says that the WAL ends here; anything that should be there and is not must stop the server (status {_STOP}).
here=${{0%/*}}
stop() {{
  echo "backstay: $1" >&2
  exit {_STOP}
}}
case "$1" in
  *[!0-9A-F]*)
    [ -f "$here/$1" ] || exit 1 # histories of timelines that were not asked for
    cp "$here/$1" "$2" && exit 0
    stop "cannot copy $1" ;;
esac
if ! [ -f "$here/$1" ] && ! grep -qx "$1" "$here/{PLANNED}"; then
  [ -f "$here/{PLANNED}" ] || stop "the list of WAL segments is gone"
  segment=${{1#????????}}
  grep -qx "........$segment" "$here/{PLANNED}" && exit 1 # another timeline has it, for which the server asks next
  expr "X$segment" \\> "X{last_segment[8:]}" >/dev/null && exit 1
  stop "$1 lies before the base backup"
fi
waited=0
while ! [ -f "$here/$1" ]; do
  if [ -f "$here/{ENDED}" ]; then
    stop "$(cat "$here/{ENDED}")"
  elif [ $((waited % {_TURNS})) -eq 0 ]; then
    [ $waited -gt 0 ] && [ -f "$here/{WISHES}/$1" ] && stop "nobody brings $1, as \\`backstay pg fetch\\` does"
    : >"$here/{WISHES}/$1" || stop "cannot ask for $1"
  fi
  waited=$((waited + 1))
  sleep {_TURN_S} || sleep 1
done
mv -f "$here/$1" "$2" && exit 0
stop "cannot move $1 to $2"
"""
