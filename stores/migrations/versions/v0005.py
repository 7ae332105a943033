"""Branches: a session's newest, and a branch's turns, found by an index; which branch's upkeep made a vector or a summary."""

import sqlalchemy as sa

from threadkeep.stores.migrations.steps import add_column, create_index, drop_index

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """No session was forked before, so what is there was made on its own branch: that is what no value says."""
    create_index("ix_threadkeep_branches_session", "threadkeep_branches", ["owner_id", "session_id", "id"])
    create_index("ix_threadkeep_turns_branch", "threadkeep_turns", ["owner_id", "session_id", "user_seq", "branch_id"])
    drop_index("ix_threadkeep_turns_user", "threadkeep_turns")
    add_column("threadkeep_vectors", sa.Column("made_on", sa.BigInteger(), nullable=True))
    add_column("threadkeep_summaries", sa.Column("made_on", sa.BigInteger(), nullable=True))
