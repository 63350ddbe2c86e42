"""Write the first version of the catalog's tables from their models: `python -m tools.catalog_migration`.

Only as long as no version was released: what was released stays as it is, and a change of the models is a new file
beside it, with a new number in `backstay.catalog.migrating.REVISIONS`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations.ops import UpgradeOps
from sqlalchemy.dialects.postgresql import JSONB

from backstay.catalog.models.base import Base, Moment

FILE: Final = Path(__file__).parents[1] / "src/backstay/catalog/migrations/versions/v0001.py"
_HEAD: Final = '''"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Nobody changes the audit log, not even this program.
_REFUSED = "the audit log is append-only"


def upgrade() -> None:
'''
_TAIL: Final = """
    _guard("audit")
    _guard("audit_checkpoints")


def downgrade() -> None:
    raise NotImplementedError("tables are not made older again: go back to a copy of the database")


def _guard(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION backstay_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION backstay_append_only()"
    )
"""


def _item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:  # noqa: ANN401 - alembic's own type
    """Types of ours as those that they are made of."""
    del context
    if kind == "type" and isinstance(item, Moment):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, sa.JSON) and not isinstance(item, JSONB):
        return "sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')"
    return False


def text() -> str:
    """The module, formatted."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_item": _item, "target_metadata": Base.metadata})
        made = produce_migrations(context, Base.metadata)
        assert isinstance(made.upgrade_ops, UpgradeOps)
        body = render_python_code(made.upgrade_ops, render_item=_item, migration_context=context)
    engine.dispose()
    lines = [line for line in body.splitlines() if not line.strip().startswith("#")]
    inner = "\n".join(f"    {line.removeprefix('    ')}" if line.strip() else "" for line in lines)
    return _ruff("format", _ruff("check", f"{_HEAD}{inner}\n{_TAIL}", "--fix", "--exit-zero"))


def _ruff(command: str, given: str, *options: str) -> str:
    words = [sys.executable, "-m", "ruff", command, "-q", *options, "--stdin-filename", str(FILE), "-"]
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    FILE.write_text(text())
