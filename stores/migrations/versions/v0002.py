"""What entries are chosen by: tags and importances in tables of their own, and an index of roles."""

import json
import sys

import sqlalchemy as sa
from alembic import op

from threadkeep.stores.migrations.steps import create_index, create_table
from threadkeep.stores.types import Name

revision = "0002"
down_revision = "0001"
PAGE = 1000
"""Messages with metadata that are read at once."""


def upgrade() -> None:
    tags = create_table(
        "threadkeep_tags",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tag", Name(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "tag", "seq"),
        sqlite_with_rowid=False,
    )
    importances = create_table(
        "threadkeep_importances",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("importance", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "seq"),
        sqlite_with_rowid=False,
    )
    create_index("ix_threadkeep_messages_role", "threadkeep_messages", ["owner_id", "branch_id", "role", "seq"])
    _fill(op.get_bind(), tags, importances)


def _fill(connection: sa.Connection, tags: sa.Table, importances: sa.Table) -> None:
    """What was stored as metadata before it could be asked for. What is no tag or importance stays metadata alone."""
    names = ("owner_id", "branch_id", "seq")
    messages = sa.table("threadkeep_messages", *map(sa.column, (*names, "metadata")))
    key = sa.tuple_(*(messages.c[name] for name in names))
    page = sa.select(messages).where(messages.c.metadata.is_not(None)).order_by(*(messages.c[name] for name in names)).limit(PAGE)
    rows = connection.execute(page).all()
    while rows:
        found = [(dict(zip(names, row[:3], strict=True)), json.loads(row[3])) for row in rows]
        tagged = [{**place, "tag": tag} for place, metadata in found for tag in _tags(metadata.get("tags"))]
        weighed = [{**place, "importance": metadata["importance"]} for place, metadata in found if _is_number(metadata.get("importance"))]
        for table, made in ((tags, tagged), (importances, weighed)):
            if made:
                connection.execute(sa.insert(table), made)
        rows = connection.execute(page.where(key > sa.tuple_(*rows[-1][:3]))).all()


def _tags(given: object) -> set[str]:
    if not isinstance(given, list):
        return set()
    texts = {tag for tag in given if isinstance(tag, str) and 0 < len(tag) <= 64}
    return {tag for tag in texts if "\0" not in tag and not any("\ud800" <= letter <= "\udfff" for letter in tag)}


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and abs(given) <= sys.float_info.max
