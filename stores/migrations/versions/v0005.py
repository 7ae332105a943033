"""Branches: a session's newest, and a branch's turns, found by an index; which branch's upkeep made a vector or a summary."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """No session was forked before, so what is there was made on its own branch: that is what no value says."""
    op.create_index("ix_threadkeep_branches_session", "threadkeep_branches", ["owner_id", "session_id", "id"], unique=False)
    op.drop_index("ix_threadkeep_turns_user", table_name="threadkeep_turns")
    op.create_index("ix_threadkeep_turns_user", "threadkeep_turns", ["owner_id", "session_id", "user_seq", "branch_id"], unique=False)
    op.add_column("threadkeep_vectors", sa.Column("made_on", sa.BigInteger(), nullable=True))
    op.add_column("threadkeep_summaries", sa.Column("made_on", sa.BigInteger(), nullable=True))
