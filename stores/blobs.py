"""How bytes leave a message before it is stored, and how blobs are kept and used, inside a transaction."""

import binascii
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from threadkeep.memory.blob import Blob, through
from threadkeep.memory.errors import InvalidMessage
from threadkeep.memory.message import ImagePart, Message, OpaquePart, Part
from threadkeep.stores import blob_queries, queries, turn_queries
from threadkeep.stores.queries import SessionRow

BLOB_LIMIT = 64 * 1024 * 1024
"""Bytes of one picture, sound or file."""
LONGEST_HEAD = 300
"""Characters of a data URL before its comma: no media type is longer."""
_HEAD = re.compile(r"data:([ -~]{1,255});base64", re.IGNORECASE)
BARE = "application/octet-stream"
"""The media type that a blob is stored with whose part names none."""
TEXT = "application/json"
"""The media type of what a turn's record names by hash."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A blob that a message shows."""

    blob: Blob
    data: bytes | None
    """None where the message came with an address: the owner must have it already."""
    place: str
    """Where it stands, as a path."""


def taken_out(message: Message, place: str) -> tuple[Message, tuple[Attached, ...]]:
    """The message as it is stored, an address for each data URL in its parts, and what was taken out.

    A picture's data URL is always taken out; of parts that this version does not read, every text that is a data URL, and the base64 of
    an `input_audio` part, where that makes them shorter and can be made again exactly. What stands beside the parts is left alone.

    Raises:
        InvalidMessage: a picture's data URL is no base64, or no picture; or the bytes are too many.
    """
    found: list[Attached] = []
    parts: list[Part] = []
    for at, part in enumerate(message.parts):
        here = f"{place}.content[{at}]"
        if isinstance(part, ImagePart):
            attached = _picture(part.url, f"{here}.image_url.url")
            found += attached
            parts.append(replace(part, url=attached[0].blob.url) if attached and attached[0].data is not None else part)
        elif isinstance(part, OpaquePart):
            parts.append(_opened(part, here, found))
        else:
            parts.append(part)
    if any(one.data is not None for one in found):
        message = replace(message, content=tuple(parts))
    for one in found:
        if one.data is not None and len(one.data) > BLOB_LIMIT:
            raise InvalidMessage(one.place, f"takes {len(one.data)} bytes, and a picture or file may take {BLOB_LIMIT}")
    return message, tuple(found)


def _picture(url: str, place: str) -> list[Attached]:
    """What a picture's URL holds or names; nothing where the picture is elsewhere."""
    known = Blob.read(url)
    if known is not None:
        return [Attached(known, None, place)]
    if url[:5].lower() != "data:":
        return []
    comma = url.find(",", 0, LONGEST_HEAD)
    head = _HEAD.fullmatch(url[:comma]) if comma >= 0 else None
    if head is None:
        raise InvalidMessage(place, "is a data URL that is no base64: data:image/png;base64,… is, for example")
    if head[1][:6].lower() != "image/":
        raise InvalidMessage(place, f"is a data URL of {head[1]!r:.80}, which is no picture")
    data = _decoded(url[comma + 1 :])
    if not data:
        raise InvalidMessage(place, "is a data URL whose base64 cannot be read" if data is None else "is a data URL of no bytes")
    return [Attached(_blob(data, head[1]), data, place)]


def _opened(part: OpaquePart, place: str, found: list[Attached]) -> OpaquePart:
    """A part of an unknown kind without its bytes, which are added to `found`."""

    def change(key: str, text: str) -> str:
        known = Blob.read(text)
        attached = Attached(known, None, place) if known is not None else _exact(text, place, bare=audio and key == "data")
        if attached is None:
            return text
        found.append(attached)
        return attached.blob.url

    audio = part.type == "input_audio"
    before = len(found)
    raw = through(part.raw, change)
    return replace(part, raw=raw) if len(found) > before else part


def _exact(text: str, place: str, *, bare: bool) -> Attached | None:
    """The bytes of a text that is made again from them to the letter, and is longer than the address that would stand for it."""
    comma = text.find(",", 0, LONGEST_HEAD) if text[:5] == "data:" else -1
    head = _HEAD.fullmatch(text[:comma]) if comma >= 0 else None
    if head is None and not bare:
        return None
    data = _decoded(text[comma + 1 :] if head else text)
    if not data:
        return None
    blob = _blob(data, head[1] if head else "")
    return Attached(blob, data, place) if len(text) > len(blob.url) and blob.spelled(data) == text else None


def _decoded(text: str) -> bytes | None:
    """The bytes of base64, blanks and missing padding forgiven as browsers do; None where it is none."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one, and what is not ASCII raises it
        bare = "".join(text.split()).rstrip("=")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        return None


def _blob(data: bytes, media_type: str) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data), media_type)


# Inside a transaction. Two that add the same blob at once make the same row: the database undoes one of them, and it is run again.


def keep(connection: Connection, owner_id: int, branch_id: int, attached: Sequence[tuple[int, Attached]]) -> None:
    """Store what entries show, by their seqs, and the owner does not have yet; and that they use it.

    Raises:
        InvalidMessage: an address names what this owner does not have.
    """
    given = {one.blob.sha256: one for _, one in attached if one.data is not None}
    named = [one for _, one in attached if one.data is None]
    there = _there(connection, owner_id, {one.blob.sha256 for _, one in attached})
    sizes = blob_queries.sizes(connection, owner_id, {one.blob.sha256 for one in named} & there) if named else {}
    sizes |= {sha256: one.blob.size for sha256, one in given.items()}
    for one in named:
        if sizes.get(one.blob.sha256) != one.blob.size:
            raise InvalidMessage(one.place, "is the address of a picture or file that this owner does not have: give its bytes")
    for sha256 in sorted(given.keys() - there):  # in one order, so that those who add several never wait in a circle
        media_type = given[sha256].blob.media_type.partition(";")[0] or BARE
        blob_queries.add_blob(connection, owner_id, sha256, media_type, given[sha256].data or b"")
    blob_queries.add_uses(connection, owner_id, branch_id, {(seq, one.blob.sha256) for seq, one in attached})


def keep_texts(connection: Connection, session: SessionRow, texts: Mapping[str, bytes]) -> None:
    """Store what a turn's record names by hash, and that its branch uses it. Most turns name what the one before named."""
    if not texts:
        return
    owner_id, branch_id = session.owner_id, session.branch_id
    used = blob_queries.used_by_turns(connection, owner_id, branch_id, texts)
    new = {sha256: data for sha256, data in texts.items() if sha256 not in used}
    if new:
        for sha256 in sorted(new.keys() - _there(connection, owner_id, new)):
            blob_queries.add_blob(connection, owner_id, sha256, TEXT, new[sha256])
        blob_queries.add_uses(connection, owner_id, branch_id, {(blob_queries.BY_TURNS, sha256) for sha256 in new})


def delete_session(connection: Connection, session: SessionRow) -> None:
    """Every row that belongs to a session, and the blobs that nothing else uses."""
    turn_queries.delete_turns(connection, session)  # whoever writes to one ends before it is looked what the session uses
    used = blob_queries.used_in_session(connection, session)
    blob_queries.lock(connection, session.owner_id, used)
    queries.delete_session(connection, session)
    blob_queries.delete_unused(connection, session.owner_id, used)


def _there(connection: Connection, owner_id: int, hashes: Collection[str]) -> set[str]:
    """Those that the owner has, and that nobody deletes before the transaction ends."""
    found = blob_queries.there(connection, owner_id, hashes)
    return blob_queries.hold(connection, owner_id, found) if found else found
