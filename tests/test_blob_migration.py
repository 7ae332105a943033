"""What older releases stored with its bytes in it is kept apart after the migration, as if it had always been."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from random import Random

import databases
import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from threadkeep import Budget, ImagePart, KeyReused, Memory, Message, ScriptedBackend, TextPart
from threadkeep.memory.blob import Blob, through
from threadkeep.stores.schema import blobs, messages, metadata, uses
from threadkeep.stores.versions import VERSION_TABLE

PICTURES = [Random(seed).randbytes(3000) for seed in range(3)]
SOUND = Random(9).randbytes(900)
UNREADABLE = json.dumps(Message.user([ImagePart("data:image/png;base64,no base64!")]).to_dict())
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}}


def showing(*pictures: bytes) -> Message:
    return Message.user([TextPart("Look; a data URL has ;base64, in it"), *(ImagePart.from_bytes(one, "image/png") for one in pictures)])


@pytest.fixture(params=("sqlite", *databases.KINDS))
def memory(request: pytest.FixtureRequest, url: str) -> Iterator[Memory]:
    """On a database of its own, whose tables may be taken down."""
    where = url if request.param == "sqlite" else databases.new_database(request.param).render_as_string(hide_password=False)
    with Memory(where, backend=ScriptedBackend(lambda _: "A hen."), budget=Budget(100_000, reply=500), upkeep=False) as made:
        made.store.migrate()
        yield made


@pytest.mark.parametrize("older", ["0004", "0005"])
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "gone on with"])
def test_bytes_in_messages_are_moved(memory: Memory, older: str, cut: bool) -> None:
    batches = fill(memory)
    wanted = rows(memory)
    with memory.store.engine.begin() as connection:
        undo(connection, batches, [3, 1] if cut else range(1, 100))
        connection.execute(insert(blobs), {"owner_id": 7, "sha256": "0" * 64, "media_type": "application/json", "bytes": b"left behind"})
        if not cut:
            connection.execute(text("DROP TABLE threadkeep_uses"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{older}'"))

    memory.store.migrate()

    assert rows(memory) == wanted
    session = memory.session("chat", owner="ada")
    session.append("one", showing(PICTURES[0]), "three", showing(PICTURES[1]), key="batch")
    assert session.chat(showing(PICTURES[2]), key="turn").seq == 8
    assert len(session.entries()) == 10
    with pytest.raises(KeyReused):
        session.append("one", showing(PICTURES[2]), "three", showing(PICTURES[1]), key="batch")
    assert session.context().messages[1] == showing(PICTURES[0]).to_dict()
    assert session.context(as_of=1).messages[0] == {"role": "system", "content": "Be kind."}
    assert session.entries()[8].body == UNREADABLE
    session.delete()
    memory.session("chat", owner="bob").delete()
    with memory.store.engine.connect() as connection:
        assert connection.execute(select(blobs.c.sha256)).all() == []


def fill(memory: Memory) -> dict[int, dict[int, int]]:
    """Sessions as they are to be; by branch, how many entries came under a key, by the first one's seq."""
    session = memory.session("chat", owner="ada")
    session.append("one", showing(PICTURES[0]), "three", showing(PICTURES[1]), key="batch")
    session.append(showing(PICTURES[0], PICTURES[1], PICTURES[0]))
    session.append("a key of its own", key="text")
    session.chat(showing(PICTURES[2]), key="turn", instructions="Be kind.", tools=[TOOL])
    session.append("what cannot be read")
    sound = {"type": "input_audio", "input_audio": {"data": b64encode(SOUND).decode(), "format": "wav"}}
    session.append({"role": "user", "content": [{"type": "text", "text": "data:image/png;base64,AAAA"}, sound]})
    memory.session("chat", owner="bob").append(showing(PICTURES[0]))
    with memory.store.engine.begin() as connection:
        branch_id = connection.execute(select(messages.c.branch_id).where(messages.c.key == "batch")).scalar_one()
        connection.execute(update(messages).where(messages.c.branch_id == branch_id, messages.c.seq == 9).values(body=UNREADABLE))
    return {branch_id: {1: 4, 6: 1, 7: 1}}


def rows(memory: Memory) -> dict[str, list[str]]:
    with memory.store.engine.connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in metadata.sorted_tables}


def undo(connection: Connection, batches: Mapping[int, Mapping[int, int]], seqs: range | list[int]) -> None:
    """Put the bytes back into these entries, and let nothing else show that they were elsewhere."""
    data = {(row.owner_id, row.sha256): row.bytes for row in connection.execute(select(blobs))}
    bodies = {}
    for row in connection.execute(select(messages).where(messages.c.seq.in_(list(seqs)))):
        message = json.loads(row.body)

        def change(_: str, address: str, owner_id: int = row.owner_id) -> str:
            blob = Blob.read(address)
            return address if blob is None else blob.spelled(data[owner_id, blob.sha256])

        if isinstance(message["content"], list):
            message["content"] = [through(part, change) for part in message["content"]]
        bodies[row.branch_id, row.seq] = json.dumps(message, separators=(",", ":")) if row.body != UNREADABLE else row.body
    for (branch_id, seq), body in bodies.items():
        connection.execute(update(messages).where(messages.c.branch_id == branch_id, messages.c.seq == seq).values(body=body))
        connection.execute(delete(uses).where(uses.c.branch_id == branch_id, uses.c.seq == seq))
    for branch_id, lengths in batches.items():
        stored = dict(map(tuple, connection.execute(select(messages.c.seq, messages.c.body).where(messages.c.branch_id == branch_id))))
        for first, length in lengths.items():
            said = "".join(stored[seq] + "\n" for seq in range(first, first + length))
            digest = hashlib.sha256(said.encode()).hexdigest()
            connection.execute(update(messages).where(messages.c.branch_id == branch_id, messages.c.seq == first).values(key_digest=digest))
    kept = select(uses.c.sha256).where(uses.c.owner_id == blobs.c.owner_id)
    connection.execute(delete(blobs).where(blobs.c.media_type != "application/json", blobs.c.sha256.not_in(kept.scalar_subquery())))
