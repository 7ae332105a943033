"""Blobs and what uses them: what messages carried as data URLs is kept apart, once an owner, and can be deleted with its last use.

What is written here stands in databases and never changes, so it is written out, whatever later releases do. Where it was cut short, on a
database that keeps changed tables, it goes on with what is still to be done.
"""

import binascii
import hashlib
import json
import re
from base64 import b64encode
from bisect import bisect_right
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

from threadkeep.stores.migrations.steps import create_index, create_table
from threadkeep.stores.types import LongBytes, LongText, Name

revision = "0007"
down_revision = "0006"
PAGE = 200
"""Turns whose records are read at once. Messages that may carry bytes are read one by one: each may take megabytes."""
LONGEST_HEAD = 300
_HEAD = re.compile(r"data:([ -~]{1,255});base64", re.IGNORECASE)

_blobs = sa.table("threadkeep_blobs", *map(sa.column, ("owner_id", "sha256", "media_type")), sa.column("bytes", LongBytes))
_messages = sa.table(
    "threadkeep_messages",
    *map(sa.column, ("owner_id", "branch_id", "seq", "key_digest")),
    sa.column("body", LongText),
    sa.column("key", Name(255)),
)
_turns = sa.table("threadkeep_turns", *map(sa.column, ("owner_id", "session_id", "id", "branch_id")), sa.column("manifest", LongText))
_uses = sa.table("threadkeep_uses", *map(sa.column, ("owner_id", "branch_id", "seq", "sha256")))
_PLACE = (_messages.c.owner_id, _messages.c.branch_id, _messages.c.seq)


def upgrade() -> None:
    create_table(
        "threadkeep_uses",
        sa.Column("owner_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("branch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "branch_id", "seq", "sha256"),
        sqlite_with_rowid=False,
    )
    create_index("ix_threadkeep_uses_blob", "threadkeep_uses", ["owner_id", "sha256"])
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":  # so that it looks for each hash by the whole key, as 0006 says of other tables
        op.execute("ALTER TABLE threadkeep_blobs ALTER COLUMN owner_id SET (n_distinct = -0.01)")
    _note_texts(connection)
    _move_bytes(connection)
    used = sa.exists().where(_uses.c.owner_id == _blobs.c.owner_id, _uses.c.sha256 == _blobs.c.sha256)
    connection.execute(sa.delete(_blobs).where(~used))  # what sessions that were deleted left behind


def _note_texts(connection: sa.Connection) -> None:
    """What the records of turns name by hash, as used by their branches: seq 0 is no entry's."""
    columns = (_turns.c.owner_id, _turns.c.session_id, _turns.c.id)
    page = sa.select(_turns).where(_turns.c.manifest.is_not(None)).order_by(*columns).limit(PAGE)
    rows = connection.execute(page).all()
    while rows:
        named = [(row, json.loads(row.manifest)) for row in rows]
        used = {(row.owner_id, row.branch_id, record[text]) for row, record in named for text in ("instructions", "tools")}
        _add(connection, _uses, [dict(zip(("owner_id", "branch_id", "sha256"), use, strict=True), seq=0) for use in sorted(used)])
        rows = connection.execute(page.where(sa.tuple_(*columns) > sa.tuple_(*rows[-1][:3]))).all()


def _move_bytes(connection: sa.Connection) -> None:
    """Messages that carry bytes, branch by branch."""
    may = sa.or_(_messages.c.body.like("%;base64,%"), _messages.c.body.like('%"input!_audio"%', escape="!"))
    places = connection.execute(sa.select(*_PLACE).where(may).order_by(*_PLACE)).all()
    for (owner_id, branch_id), found in groupby(places, key=lambda place: (place.owner_id, place.branch_id)):
        _Branch(connection, owner_id, branch_id).move([place.seq for place in found])


class _Branch:
    """One branch's messages. A key stands for the bodies of its whole batch: where one changes, the key's digest does too."""

    def __init__(self, connection: sa.Connection, owner_id: int, branch_id: int) -> None:
        self.connection = connection
        self.owned = {"owner_id": owner_id, "branch_id": branch_id}
        self.own = (_messages.c.owner_id == owner_id) & (_messages.c.branch_id == branch_id)
        keyed = sa.select(_messages.c.seq, _messages.c.key_digest).where(self.own, _messages.c.key.is_not(None))
        self.keyed: dict[int, str] = dict(map(tuple, connection.execute(keyed.order_by(_messages.c.seq)).all()))
        self.starts = list(self.keyed)
        self.ends: dict[int, int] = {}

    def move(self, seqs: list[int]) -> None:
        done = 0
        for seq in seqs:
            if seq > done:
                start = self.batch_of(seq)
                done = seq if start is None else self.ends[start]
                digest = hashlib.sha256()
                for one in range(seq if start is None else start, done + 1):
                    digest.update(self.moved(one).encode("ascii") + b"\n")
                if start is not None:
                    self.change(start, key_digest=digest.hexdigest())

    def batch_of(self, seq: int) -> int | None:
        """The first entry of the batch that an entry came in, if that had a key."""
        at = bisect_right(self.starts, seq)
        if at == 0:
            return None
        start = self.starts[at - 1]
        if start not in self.ends:
            self.ends[start] = self.end_of(start)
        return start if self.ends[start] >= seq else None

    def end_of(self, start: int) -> int:
        """The last entry of the batch that begins here: the one with which its digest is reached. 0: nowhere."""
        digest, seq = hashlib.sha256(), start
        while (seq == start or seq not in self.keyed) and (body := self.body(seq)) is not None:
            digest.update(body.encode("ascii") + b"\n")
            if digest.hexdigest() == self.keyed[start]:
                return seq
            seq += 1
        return 0

    def body(self, seq: int) -> str | None:
        found: str | None = self.connection.execute(sa.select(_messages.c.body).where(self.own, _messages.c.seq == seq)).scalar()
        return found

    def change(self, seq: int, **values: str) -> None:
        self.connection.execute(sa.update(_messages).where(self.own, _messages.c.seq == seq).values(**values))

    def moved(self, seq: int) -> str:
        """Move what an entry carries; its body as it then is."""
        body = self.body(seq) or ""
        message = json.loads(body)
        taken: dict[str, tuple[str, bytes]] = {}
        if isinstance(message.get("content"), list):
            message["content"] = [_without_bytes(part, taken, _most(self.connection)) for part in message["content"]]
        if not taken:
            return body
        for sha256, (media_type, data) in sorted(taken.items()):
            _add_blob(self.connection, {"owner_id": self.owned["owner_id"], "sha256": sha256, "media_type": media_type}, data)
        _add(self.connection, _uses, [{**self.owned, "seq": seq, "sha256": sha256} for sha256 in sorted(taken)])
        body = json.dumps(message, separators=(",", ":"))
        self.change(seq, body=body)
        return body


def _without_bytes(part: Any, taken: dict[str, tuple[str, bytes]], most: int) -> Any:
    """A part with addresses in place of its data URLs; what cannot be read, or is too much for a statement, stays as it is."""

    def address(key: str, text: str) -> str:
        comma = text.find(",", 0, LONGEST_HEAD) if text[:5].lower() == "data:" else -1
        head = _HEAD.fullmatch(text[:comma]) if comma >= 0 else None
        bare = head is None and kind == "input_audio" and key == "data"
        if head is None and not bare:
            return text
        data = _decoded(text[comma + 1 :] if head else text)
        if not data or len(text) + 1024 > most:
            return text
        sha256, media_type = hashlib.sha256(data).hexdigest(), head[1] if head else ""
        short = f"threadkeep:blob/{sha256}/{len(data)}/{media_type}"
        if kind == "image_url":
            if media_type[:6].lower() != "image/":
                return text
        elif len(text) <= len(short) or text != (f"data:{media_type};base64," if head else "") + b64encode(data).decode():
            return text
        taken[sha256] = media_type.partition(";")[0] or "application/octet-stream", data
        return short

    def through(value: Any, key: str) -> Any:
        if isinstance(value, str):
            return address(key, value)
        if isinstance(value, dict):
            return {inner: through(one, inner) for inner, one in value.items()}
        return [through(one, key) for one in value] if isinstance(value, list) else value

    kind = part.get("type")
    if kind == "text":
        return part
    if kind == "image_url":
        return {**part, "image_url": {**part["image_url"], "url": address("url", part["image_url"]["url"])}}
    return through(part, "")


def _decoded(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        bare = "".join(text.split()).rstrip("=")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        return None


def _most(connection: sa.Connection) -> int:
    """The most bytes that a statement may have."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return 2**40
    return int(connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one())


def _add_blob(connection: sa.Connection, row: dict[str, object], data: bytes) -> None:
    """Bytes that may be there already. MariaDB and MySQL get them as base64, which takes less of a packet than what the driver sends."""
    if connection.dialect.name in ("mysql", "mariadb"):
        as_base64 = sa.func.from_base64(sa.bindparam("b_bytes", type_=sa.String))
        connection.execute(sa.insert(_blobs).prefix_with("IGNORE").values(bytes=as_base64), {**row, "b_bytes": b64encode(data).decode()})
    else:
        _add(connection, _blobs, [{**row, "bytes": data}])


def _add(connection: sa.Connection, table: sa.TableClause, rows: list[dict[str, object]]) -> None:
    """Rows that may be there already."""
    if connection.dialect.name == "postgresql":
        statement: sa.Insert = postgresql.insert(table).on_conflict_do_nothing()
    elif connection.dialect.name == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing()
    else:
        statement = sa.insert(table).prefix_with("IGNORE")
    connection.execute(statement, rows)
