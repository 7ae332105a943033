"""The first tables."""

import sqlalchemy as sa

from threadkeep.stores.migrations.steps import create_index, create_table
from threadkeep.stores.types import LongBytes, LongText, Name

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_table(
        "threadkeep_blobs",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=255), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("bytes", LongBytes, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "sha256"),
    )
    create_table(
        "threadkeep_branches",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("name", Name(length=255), nullable=False),
        sa.Column("lineage", LongText, nullable=False),
        sa.Column("head_seq", sa.BigInteger(), nullable=False),
        sa.Column("head_tokens", sa.BigInteger(), nullable=False),
        sa.Column("head_shown", sa.BigInteger(), nullable=False),
        sa.Column("head_group", sa.BigInteger(), nullable=False),
        sa.Column("head_turn", sa.BigInteger(), nullable=False),
        sa.Column("leading", sa.BigInteger(), nullable=False),
        sa.Column("open_calls", LongText, nullable=False),
        sa.Column("analyser", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    create_index("uq_threadkeep_branches_name", "threadkeep_branches", ["owner_id", "session_id", "name"], unique=True)
    create_table(
        "threadkeep_calls",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("turn_id", sa.BigInteger(), nullable=True),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("first_token_ms", sa.Integer(), nullable=True),
        sa.Column("total_ms", sa.Integer(), nullable=True),
        sa.Column("cost", sa.String(length=64), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    create_index("ix_threadkeep_calls_session", "threadkeep_calls", ["owner_id", "session_id", "id"])
    create_table(
        "threadkeep_messages",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("body", LongText, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("shown_tokens", sa.BigInteger(), nullable=False),
        sa.Column("exact", sa.SmallInteger(), nullable=False),
        sa.Column("cum_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cum_shown", sa.BigInteger(), nullable=False),
        sa.Column("group_seq", sa.BigInteger(), nullable=False),
        sa.Column("turn_seq", sa.BigInteger(), nullable=False),
        sa.Column("key", Name(length=255), nullable=True),
        sa.Column("key_digest", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("metadata", LongText, nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "seq"),
    )
    create_index("ix_threadkeep_messages_shown", "threadkeep_messages", ["owner_id", "branch_id", "cum_shown", "seq"])
    create_index("uq_threadkeep_messages_key", "threadkeep_messages", ["owner_id", "branch_id", "key"], unique=True)
    create_table(
        "threadkeep_owners",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", Name(length=255), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("wrapped_key", LongBytes, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    create_table(
        "threadkeep_pins",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "seq"),
        sqlite_with_rowid=False,
    )
    create_table(
        "threadkeep_sessions",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", Name(length=255), nullable=False),
        sa.Column("active_branch", sa.BigInteger(), nullable=False),
        sa.Column("tokenizer", Name(length=255), nullable=False),
        sa.Column("clip", sa.Integer(), nullable=False),
        sa.Column("title", LongText, nullable=True),
        sa.Column("metadata", LongText, nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    create_index("ix_threadkeep_sessions_updated", "threadkeep_sessions", ["owner_id", "updated_us", "id"])
    create_index("uq_threadkeep_sessions_name", "threadkeep_sessions", ["owner_id", "name"], unique=True)
    create_table(
        "threadkeep_summaries",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recipe", Name(length=255), nullable=False),
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("text", LongText, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("made_at_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "recipe", "level", "first_seq"),
    )
    create_table(
        "threadkeep_terms",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("term", Name(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("frequency", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "term", "seq"),
        sqlite_with_rowid=False,
    )
    create_table(
        "threadkeep_turns",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), nullable=False),
        sa.Column("user_seq", sa.BigInteger(), nullable=False),
        sa.Column("reply_seq", sa.BigInteger(), nullable=True),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("draft", LongText, nullable=True),
        sa.Column("manifest", LongText, nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "session_id", "id"),
    )
    create_index("ix_threadkeep_turns_user", "threadkeep_turns", ["owner_id", "session_id", "user_seq"])
    create_table(
        "threadkeep_upkeep",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("done_seq", sa.BigInteger(), nullable=False),
        sa.Column("claimed_until_us", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("retry_us", sa.BigInteger(), nullable=False),
        sa.Column("error", LongText, nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "kind"),
    )
    create_table(
        "threadkeep_vectors",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", Name(length=255), nullable=False),
        sa.Column("vector", LongBytes, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "seq", "model"),
    )
