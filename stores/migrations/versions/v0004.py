"""What was spent: a running total for each session and owner, and how each model call ended."""

import sqlalchemy as sa

from threadkeep.stores.migrations.steps import add_column

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """No cost was stored before, so the totals begin with nothing; the calls that are there are taken for whole ones."""
    add_column("threadkeep_owners", sa.Column("spent", sa.String(length=64), nullable=True))
    add_column("threadkeep_sessions", sa.Column("spent", sa.String(length=64), nullable=True))
    add_column("threadkeep_calls", sa.Column("outcome", sa.String(length=16), server_default="complete", nullable=False))
