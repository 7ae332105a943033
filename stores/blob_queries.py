"""Every statement about blobs and what uses them. As in `queries`, each names its owner."""

from base64 import b64encode
from collections.abc import Collection, Iterator

from sqlalchemy import Connection, String, bindparam, delete, exists, func, insert, select

from threadkeep.stores.queries import SessionRow, at
from threadkeep.stores.schema import blobs, branches, owners, uses

BY_TURNS = 0
"""`uses.seq` of what the records of a branch's turns name: no entry has it."""
AT_ONCE = 500
"""Hashes that one statement names."""

_AMONG = at(blobs) & blobs.c.sha256.in_(bindparam("b_hashes", expanding=True))
_THERE = select(blobs.c.sha256).where(_AMONG)
_LOCKED = _THERE.order_by(blobs.c.sha256).with_for_update()
_HELD = _THERE.order_by(blobs.c.sha256).with_for_update(read=True, key_share=True)
_SIZES = select(blobs.c.sha256, func.length(blobs.c.bytes)).where(_AMONG)
_ADD = insert(blobs)
_ADD_AS_BASE64 = insert(blobs).values(bytes=func.from_base64(bindparam("b_bytes", type_=String)))
_BYTES = select(blobs.c.sha256, blobs.c.bytes).where(_AMONG)
_OWNER_ID = select(owners.c.id).where(owners.c.name == bindparam("b_owner")).scalar_subquery()
_BLOB = select(blobs.c.bytes).where(blobs.c.owner_id == _OWNER_ID, blobs.c.sha256 == bindparam("b_sha256"))
_USED_BY_TURNS = select(uses.c.sha256).where(at(uses, "branch_id", "seq"), uses.c.sha256.in_(bindparam("b_hashes", expanding=True)))
_USED_IN_SESSION = (
    select(uses.c.sha256)
    .join(branches, (branches.c.owner_id == uses.c.owner_id) & (branches.c.id == uses.c.branch_id))
    .where(at(uses), branches.c.session_id == bindparam("b_session_id"))
    .distinct()
)
_UNUSED = delete(blobs).where(
    _AMONG, ~exists(select(uses.c.seq).where(uses.c.owner_id == bindparam("b_owner_id"), uses.c.sha256 == blobs.c.sha256))
)


def _paged(owner_id: int, hashes: Collection[str]) -> Iterator[dict[str, object]]:
    ordered = sorted(hashes)
    for first in range(0, len(ordered), AT_ONCE):
        yield {"b_owner_id": owner_id, "b_hashes": ordered[first : first + AT_ONCE]}


# Blobs.


def find_blob(connection: Connection, owner: str, sha256: str) -> bytes | None:
    return connection.execute(_BLOB, {"b_owner": owner, "b_sha256": sha256}).scalar_one_or_none()


def find_blobs(connection: Connection, owner_id: int, hashes: Collection[str]) -> dict[str, bytes]:
    """The bytes of those that are there, by hash."""
    return {row.sha256: row.bytes for page in _paged(owner_id, hashes) for row in connection.execute(_BYTES, page)}


def sizes(connection: Connection, owner_id: int, hashes: Collection[str]) -> dict[str, int]:
    """How many bytes each has that is there."""
    return {sha256: size for page in _paged(owner_id, hashes) for sha256, size in connection.execute(_SIZES, page)}


def there(connection: Connection, owner_id: int, hashes: Collection[str]) -> set[str]:
    """Those that the owner has."""
    return {sha256 for page in _paged(owner_id, hashes) for sha256 in connection.execute(_THERE, page).scalars()}


def hold(connection: Connection, owner_id: int, hashes: Collection[str]) -> set[str]:
    """Those that are there, which until the transaction ends nobody deletes. One who writes to SQLite is alone."""
    if connection.dialect.name == "sqlite":
        return set(hashes)
    return {sha256 for page in _paged(owner_id, hashes) for sha256 in connection.execute(_HELD, page).scalars()}


def lock(connection: Connection, owner_id: int, hashes: Collection[str]) -> None:
    """Wait for those who hold them, and keep others from holding them until the transaction ends."""
    if connection.dialect.name != "sqlite":
        for page in _paged(owner_id, hashes):
            connection.execute(_LOCKED, page).all()


def add_blob(connection: Connection, owner_id: int, sha256: str, media_type: str, data: bytes) -> None:
    values = {"owner_id": owner_id, "sha256": sha256, "media_type": media_type}
    if connection.dialect.name in ("mysql", "mariadb"):  # as hexadecimals, as the driver sends them, they would take twice the packet
        connection.execute(_ADD_AS_BASE64, {**values, "b_bytes": b64encode(data).decode()})
    else:
        connection.execute(_ADD, {**values, "bytes": data})


def delete_unused(connection: Connection, owner_id: int, hashes: Collection[str]) -> None:
    """Delete those that nothing uses any more. They are locked: a use that was about to come is there by now."""
    for page in _paged(owner_id, hashes):
        connection.execute(_UNUSED, page)


# Uses.


def used_by_turns(connection: Connection, owner_id: int, branch_id: int, hashes: Collection[str]) -> set[str]:
    """Those that the records of a branch's turns are known to name."""
    values = {"b_owner_id": owner_id, "b_branch_id": branch_id, "b_seq": BY_TURNS, "b_hashes": sorted(hashes)}
    return set(connection.execute(_USED_BY_TURNS, values).scalars())


def used_in_session(connection: Connection, session: SessionRow) -> list[str]:
    """All that a session uses, whatever the branch."""
    return list(connection.execute(_USED_IN_SESSION, {"b_owner_id": session.owner_id, "b_session_id": session.id}).scalars())


def add_uses(connection: Connection, owner_id: int, branch_id: int, used: Collection[tuple[int, str]]) -> None:
    """Take note that entries of a branch, by seq, or its turns use blobs."""
    owned = {"owner_id": owner_id, "branch_id": branch_id}
    connection.execute(insert(uses), [{**owned, "seq": seq, "sha256": sha256} for seq, sha256 in sorted(used)])
