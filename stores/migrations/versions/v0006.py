"""What PostgreSQL's planner may believe of owners and sessions, so that it enters every table by the whole key."""

from alembic import op

revision = "0006"
down_revision = "0005"

INSIDE = {"sessions": "id", "branches": "id", "messages": "branch_id", "turns": "session_id", "calls": "session_id"}
"""The tables that can be entered by several indexes, and which column stands behind the owner."""


def upgrade() -> None:
    """It judges by means: an owner has so many rows, a session so many. Where most have one, it sees no difference between reading that
    one and reading all that an owner has, and of two plans that cost the same it may keep the one that reads a million rows of him who has
    them. So it is told that each has a hundred, and that a session's rows are all one owner's. ANALYZE takes it up.
    """
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, inside in INSIDE.items():
        op.execute(f"ALTER TABLE threadkeep_{table} ALTER COLUMN owner_id SET (n_distinct = -0.01)")
        if inside != "id":
            op.execute(f"ALTER TABLE threadkeep_{table} ALTER COLUMN {inside} SET (n_distinct = -0.01)")
            op.execute(
                f"CREATE STATISTICS IF NOT EXISTS threadkeep_{table}_keys (dependencies) ON owner_id, {inside} FROM threadkeep_{table}"
            )
    op.execute(
        "ALTER TABLE threadkeep_sessions ALTER COLUMN name SET STATISTICS 0"
    )  # all may be called the same, each is one of its owner's
