"""The tables, as SQLAlchemy knows them; `migrations/` makes them.

Every key leads with `owner_id`, so one turn touches one partition. Times are integers, microseconds since 1970 in UTC; bodies and
other JSON are ASCII text; names are compared byte by byte. The same on every database.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, String, Table

from threadkeep.memory.analysis import TERM_LENGTH
from threadkeep.stores.types import Double, LongBytes, LongText, Name

PREFIX = "threadkeep_"
metadata = MetaData()
NAME_LENGTH = 255
TAG_LENGTH = 64


def _owned(*, key: bool = True) -> Column[int]:
    return Column("owner_id", BigInteger, primary_key=key, autoincrement=False, nullable=False)


def _id(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


owners = Table(
    PREFIX + "owners",
    metadata,
    _id("id"),
    Column("name", Name(NAME_LENGTH), nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("wrapped_key", LongBytes),
    Column("spent", String(64)),
)
sessions = Table(
    PREFIX + "sessions",
    metadata,
    _owned(),
    _id("id"),
    Column("name", Name(NAME_LENGTH), nullable=False),
    Column("active_branch", BigInteger, nullable=False),
    Column("tokenizer", Name(NAME_LENGTH), nullable=False),
    Column("clip", Integer, nullable=False),
    Column("title", LongText),
    Column("metadata", LongText),
    Column("revision", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("spent", String(64)),
    Index(f"uq_{PREFIX}sessions_name", "owner_id", "name", unique=True),
    Index(f"ix_{PREFIX}sessions_updated", "owner_id", "updated_us", "id"),
)
branches = Table(
    PREFIX + "branches",
    metadata,
    _owned(),
    _id("id"),
    Column("session_id", BigInteger, nullable=False),
    Column("name", Name(NAME_LENGTH), nullable=False),
    Column("lineage", LongText, nullable=False),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_tokens", BigInteger, nullable=False),
    Column("head_shown", BigInteger, nullable=False),
    Column("head_group", BigInteger, nullable=False),
    Column("head_turn", BigInteger, nullable=False),
    Column("leading", BigInteger, nullable=False),
    Column("open_calls", LongText, nullable=False),
    Column("analyser", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index(f"uq_{PREFIX}branches_name", "owner_id", "session_id", "name", unique=True),
    Index(f"ix_{PREFIX}branches_session", "owner_id", "session_id", "id"),
)
messages = Table(
    PREFIX + "messages",
    metadata,
    _owned(),
    _id("branch_id"),
    _id("seq"),
    Column("role", String(16), nullable=False),
    Column("body", LongText, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("shown_tokens", BigInteger, nullable=False),
    Column("exact", SmallInteger, nullable=False),
    Column("cum_tokens", BigInteger, nullable=False),
    Column("cum_shown", BigInteger, nullable=False),
    Column("group_seq", BigInteger, nullable=False),
    Column("turn_seq", BigInteger, nullable=False),
    Column("key", Name(NAME_LENGTH)),
    Column("key_digest", String(64)),
    Column("status", String(16), nullable=False),
    Column("metadata", LongText),
    Column("created_us", BigInteger, nullable=False),
    Index(f"ix_{PREFIX}messages_shown", "owner_id", "branch_id", "cum_shown", "seq"),
    Index(f"ix_{PREFIX}messages_role", "owner_id", "branch_id", "role", "seq"),
    Index(f"uq_{PREFIX}messages_key", "owner_id", "branch_id", "key", unique=True),
)
pins = Table(
    PREFIX + "pins",
    metadata,
    _owned(),
    _id("branch_id"),
    _id("seq"),
    Column("since_seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
terms = Table(
    PREFIX + "terms",
    metadata,
    _owned(),
    _id("branch_id"),
    Column("term", Name(TERM_LENGTH), primary_key=True),
    _id("seq"),
    Column("frequency", Integer, nullable=False),
    Column("length", Integer, nullable=False),
    sqlite_with_rowid=False,
)
tags = Table(
    PREFIX + "tags",
    metadata,
    _owned(),
    _id("branch_id"),
    Column("tag", Name(TAG_LENGTH), primary_key=True),
    _id("seq"),
    sqlite_with_rowid=False,
)
importances = Table(
    PREFIX + "importances",
    metadata,
    _owned(),
    _id("branch_id"),
    _id("seq"),
    Column("importance", Double, nullable=False),
    sqlite_with_rowid=False,
)
vectors = Table(
    PREFIX + "vectors",
    metadata,
    _owned(),
    _id("branch_id"),
    _id("seq"),
    Column("model", Name(NAME_LENGTH), primary_key=True),
    Column("vector", LongBytes, nullable=False),
    Column("made_at_seq", BigInteger, server_default="0", nullable=False),
    Column("made_on", BigInteger),
)
summaries = Table(
    PREFIX + "summaries",
    metadata,
    _owned(),
    _id("branch_id"),
    Column("recipe", Name(NAME_LENGTH), primary_key=True),
    Column("level", Integer, primary_key=True, autoincrement=False),
    _id("first_seq"),
    Column("last_seq", BigInteger, nullable=False),
    Column("text", LongText, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("source", LongText, nullable=False),
    Column("made_at_seq", BigInteger, nullable=False),
    Column("made_on", BigInteger),
)
turns = Table(
    PREFIX + "turns",
    metadata,
    _owned(),
    _id("session_id"),
    _id("id"),
    Column("branch_id", BigInteger, nullable=False),
    Column("user_seq", BigInteger, nullable=False),
    Column("reply_seq", BigInteger),
    Column("holder", String(255), nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("draft", LongText),
    Column("manifest", LongText),
    Column("created_us", BigInteger, nullable=False),
    Index(f"ix_{PREFIX}turns_branch", "owner_id", "session_id", "user_seq", "branch_id"),
)
blobs = Table(
    PREFIX + "blobs",
    metadata,
    _owned(),
    Column("sha256", String(64), primary_key=True),
    Column("media_type", String(255), nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("bytes", LongBytes, nullable=False),
)
uses = Table(
    PREFIX + "uses",
    metadata,
    _owned(),
    _id("branch_id"),
    _id("seq"),
    Column("sha256", String(64), primary_key=True),
    Index(f"ix_{PREFIX}uses_blob", "owner_id", "sha256"),
    sqlite_with_rowid=False,
)
calls = Table(
    PREFIX + "calls",
    metadata,
    _owned(),
    _id("id"),
    Column("session_id", BigInteger, nullable=False),
    Column("turn_id", BigInteger),
    Column("purpose", String(32), nullable=False),
    Column("model", String(255), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("first_token_ms", Integer),
    Column("total_ms", Integer),
    Column("cost", String(64)),
    Column("created_us", BigInteger, nullable=False),
    Column("outcome", String(16), server_default="complete", nullable=False),
    Index(f"ix_{PREFIX}calls_session", "owner_id", "session_id", "id"),
)
upkeep = Table(
    PREFIX + "upkeep",
    metadata,
    _owned(),
    _id("branch_id"),
    Column("kind", String(64), primary_key=True),
    Column("done_seq", BigInteger, nullable=False),
    Column("claimed_until_us", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("retry_us", BigInteger, nullable=False),
    Column("error", LongText),
)
