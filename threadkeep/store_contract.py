"""What holds for the store on every database: what goes in comes out, whole batches only, each owner's apart, pages that say enough."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, update

from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.blob_contract import BlobContract
from threadkeep.branch_contract import BranchContract
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import Conflict, InvalidMessage, InvalidSetting, KeyReused, LeaseLost, NotFound
from threadkeep.memory.history import Entry
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import ImagePart, Message, MessageLike, TextPart, ToolCall
from threadkeep.memory.session import Session
from threadkeep.owner_contract import OwnerContract
from threadkeep.stores.schema import metadata, turns

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
AWKWARD = (
    "NUL \0 inside",
    "lone \ud800 surrogate \udfff",
    "👩\u200d👧 emoji 🙂",
    "'; drop table x; --",
    "\u202e\ufeff\u2028",
    " ends in blanks  ",
    "\r\n",
    "",
)
LOOK_ALIKES = "ada|Ada|ADA|ada | ada|ａda|a\u0301da|\u00e1da|ada\t|\u00e4da|\u0430da|ss|\u00df|1|01|%|_|'|\\".split("|")


def texts(session: Session) -> list[str]:
    """What the session's entries say, in order."""
    return [entry.message.text for entry in session.entries(limit=10_000)]


class StoreContract(BlobContract, BranchContract, OwnerContract):
    """What holds for `SQLStore` on every database: override the fixture `store_url`."""

    @pytest.fixture
    def store_url(self) -> str:
        """The URL of a database without any session, migrated where it does not migrate itself."""
        raise NotImplementedError("override the fixture `store_url`")

    @pytest.fixture
    def memory(self, store_url: str) -> Iterator[Memory]:
        """A memory there, answered by a script."""

        def reply(context: Context) -> str:
            return f"reply to {context.messages[-1]['content']}"

        with Memory(store_url, backend=ScriptedBackend(reply), budget=Budget(4000, reply=500)) as made:
            yield made

    @pytest.fixture
    def session(self, memory: Memory) -> Session:
        return memory.session("chat", owner="ada")

    # Appending.

    def test_entries_come_back_as_they_were_appended(self, session: Session) -> None:
        appended = session.append("Hello", Message.assistant("Good morning."), {"role": "user", "content": "Bye", "name": "Ada"})
        assert [entry.seq for entry in appended] == [1, 2, 3]
        assert session.entries() == appended
        assert [entry.message.to_dict() for entry in session.entries()][2] == {"role": "user", "content": "Bye", "name": "Ada"}

    def test_every_kind_of_message_comes_back_whole(self, session: Session) -> None:
        messages: list[MessageLike] = [
            Message.system("You help."),
            Message.user([TextPart("What is this?"), ImagePart(PIXEL)]),
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}], "unknown": [1, None]},
            Message.assistant(None, tool_calls=[ToolCall("a", "look", '{"x": 1}'), ToolCall("b", "look", "not json")]),
            Message.tool("found", tool_call_id="b"),
            Message.tool("found", tool_call_id="a"),
            {"role": "assistant", "content": "done", "reasoning_content": "because", "refusal": None},
        ]
        session.append(*messages)
        wanted = [message.to_dict() if isinstance(message, Message) else message for message in messages]
        came = [entry.message for entry in session.entries()]
        picture = came[1].parts[1]
        assert isinstance(picture, ImagePart)
        assert session.blob(picture) == b64decode(PIXEL.partition(",")[2])
        came[1] = came[1].with_content((came[1].parts[0], ImagePart(PIXEL)))
        assert [message.to_dict() for message in came] == wanted

    @pytest.mark.parametrize("text", AWKWARD)
    def test_awkward_text_comes_back_as_it_went_in(self, session: Session, text: str) -> None:
        session.append(text, metadata={"said": text})
        (entry,) = session.entries()
        assert entry.message.text == text
        assert entry.metadata == {"said": text}

    def test_five_megabytes_come_back_whole(self, session: Session) -> None:
        text = "0123456789abcdef \u00e9\n" * 270_000
        session.append(text)
        assert texts(session) == [text]

    def test_a_bad_message_in_a_batch_writes_nothing(self, memory: Memory, session: Session) -> None:
        with pytest.raises(InvalidMessage) as caught:
            session.append("one", {"role": "nobody", "content": "two"}, "three")
        assert caught.value.field.startswith("messages[1]")
        assert memory.sessions(owner="ada") == []

    def test_an_append_of_nothing_makes_no_session(self, memory: Memory, session: Session) -> None:
        assert session.append() == []
        assert memory.sessions(owner="ada") == []

    def test_a_batch_under_a_key_is_written_once(self, session: Session) -> None:
        first = session.append("one", "two", key="k")
        session.append("three")
        assert session.append("one", "two", key="k") == first
        assert texts(session) == ["one", "two", "three"]

    def test_a_key_with_other_content_is_refused(self, session: Session) -> None:
        session.append("one", "two", key="k")
        for other in (["one"], ["one", "two", "three"], ["two", "one"], ["onetwo"], [Message.assistant("one"), "two"]):
            with pytest.raises(KeyReused):
                session.append(*other, key="k")
        assert texts(session) == ["one", "two"]

    def test_a_key_names_one_batch_in_each_session(self, memory: Memory, session: Session) -> None:
        session.append("one", key="k")
        memory.session("other", owner="ada").append("two", key="k")
        memory.session("chat", owner="bob").append("three", key="k")
        session.append("four", key="K")
        assert texts(session) == ["one", "four"]

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2024, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
            datetime(1969, 12, 31, 23, 0, 0, 1, tzinfo=timezone(timedelta(hours=-8))),
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ],
    )
    def test_a_moment_comes_back_as_it_was_in_utc(self, session: Session, moment: datetime) -> None:
        session.append("then", created_at=moment)
        (entry,) = session.entries()
        assert entry.created_at == moment
        assert entry.created_at.utcoffset() == timedelta(0)

    @pytest.mark.parametrize(
        "moment",
        [datetime(2024, 1, 1), "2024-01-01", 0, datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))],  # noqa: DTZ001
    )
    def test_what_is_no_moment_is_refused(self, session: Session, moment: datetime) -> None:
        with pytest.raises(InvalidMessage) as caught:
            session.append("then", created_at=moment)
        assert caught.value.field == "created_at"

    def test_without_a_moment_it_is_now(self, session: Session) -> None:
        before = datetime.now(UTC)
        session.append("now")
        assert before - timedelta(seconds=1) < session.entries()[0].created_at < datetime.now(UTC) + timedelta(seconds=1)

    def test_metadata_comes_back(self, session: Session) -> None:
        session.append("one", "two", metadata={"source": "import", "deep": [1, {"é": None}]})
        session.append("three")
        assert [entry.metadata for entry in session.entries()] == [{"source": "import", "deep": [1, {"é": None}]}] * 2 + [{}]

    @pytest.mark.parametrize("given", [["a list"], "text", {"a": {1}}, {"a": float("nan")}, {"a": object()}])
    def test_what_is_no_metadata_is_refused(self, session: Session, given: dict[str, object]) -> None:
        with pytest.raises(InvalidMessage):
            session.append("one", metadata=given)

    # Names.

    @pytest.mark.parametrize("name", ["", "a\0b", "half \ud83d", "\udc00", "x" * 256, None, 7, b"ada"])
    def test_a_name_that_no_database_keeps_is_refused(self, memory: Memory, session: Session, name: str) -> None:
        with pytest.raises(InvalidSetting):
            memory.session(name)
        with pytest.raises(InvalidSetting):
            memory.session("chat", owner=name)
        with pytest.raises(InvalidSetting):
            memory.sessions(owner=name)
        with pytest.raises(InvalidSetting):
            memory.delete_owner(name)
        if name is not None:
            with pytest.raises(InvalidSetting):
                session.append("one", key=name)
            with pytest.raises(InvalidSetting):
                session.turn("one", key=name)

    def test_the_longest_names_are_kept(self, memory: Memory) -> None:
        longest = "🙂" * 255
        memory.session(longest, owner=longest).append("one", key=longest)
        assert [listed.name for listed in memory.sessions(owner=longest)] == [longest]

    def test_names_that_look_alike_never_mix(self, memory: Memory) -> None:
        names = LOOK_ALIKES
        for owner in names:
            for name in names:
                memory.session(name, owner=owner).append(f"{owner!r} {name!r}", key="k")
        for owner in names:
            assert {listed.name for listed in memory.sessions(owner=owner)} == set(names)
            for name in names:
                assert texts(memory.session(name, owner=owner)) == [f"{owner!r} {name!r}"]
        assert memory.delete_owner("ada") == len(names)
        assert len(memory.sessions(owner="Ada")) == len(names)

    def test_an_owner_sees_nothing_of_another(self, memory: Memory) -> None:
        memory.session("chat", owner="ada").append("secret of Ada", key="k")
        memory.session("chat", owner="ada").pin(1)
        other = memory.session("chat", owner="bob")
        for read in (other.entries, other.calls, other.delete, lambda: other.pin(1), lambda: other.context(as_of=1)):
            with pytest.raises(NotFound) as caught:
                read()
            assert "Ada" not in str(caught.value)
        assert memory.sessions(owner="bob") == []
        assert [message["content"] for message in other.context("Hello").messages] == ["Hello"]

    # Reading.

    def test_entries_come_by_page(self, session: Session) -> None:
        session.append(*map(str, range(1, 11)))
        pages, after = [], 0
        while page := session.entries(after=after, limit=4):
            pages.append([entry.seq for entry in page])
            after = page[-1].seq
        assert pages == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
        assert session.entries(after=10) == session.entries(after=10**30) == []
        assert len(session.entries(after=-5)) == 10

    def test_a_page_that_is_none_is_refused(self, memory: Memory, session: Session) -> None:
        session.append("one")
        for limit in (0, -1, 10**30, "2", None):
            with pytest.raises(InvalidSetting):
                session.entries(limit=limit)  # type: ignore[arg-type]
            with pytest.raises(InvalidSetting):
                memory.sessions(limit=limit)  # type: ignore[arg-type]
        with pytest.raises(InvalidSetting):
            session.entries(after="1")  # type: ignore[arg-type]

    def test_calls_come_by_page(self, session: Session) -> None:
        for number in range(7):
            session.chat(f"question {number}")
        pages, after = [], 0
        while page := session.calls(after=after, limit=3):
            pages.append([call.turn_id for call in page])
            after = page[-1].id
        assert pages == [[1, 2, 3], [4, 5, 6], [7]]
        assert session.calls(after=10**30) == []
        assert len(session.calls(after=-5)) == 7
        for given in ({"limit": 0}, {"limit": "2"}, {"after": "1"}):
            with pytest.raises(InvalidSetting):
                session.calls(**given)

    def test_what_does_not_exist_is_not_found(self, session: Session) -> None:
        for read in (session.entries, session.calls, session.delete, lambda: session.pin(1), lambda: session.context(as_of=1)):
            with pytest.raises(NotFound):
                read()

    def test_sessions_are_listed_the_last_used_first(self, memory: Memory) -> None:
        for name in ("one", "two", "three"):
            memory.session(name).append("hello")
            time.sleep(0.002)
        memory.session("one").append("again")
        listed = memory.sessions()
        assert [(one.name, one.entries) for one in listed] == [("one", 2), ("three", 1), ("two", 1)]
        assert listed[0].created_at < listed[2].created_at < listed[1].updated_at < listed[0].updated_at

    def test_sessions_come_by_page_even_those_of_one_moment(self, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 1_700_000_000.0)
            patch.setattr("threadkeep.stores.rows.time", lambda: 1_700_000_000.0)
            for number in range(7):
                memory.session(f"session {number}").append("hello")
        seen: list[str] = []
        while page := memory.sessions(after=seen[-1] if seen else None, limit=3):
            seen += [listed.name for listed in page]
        assert sorted(seen) == [f"session {number}" for number in range(7)]
        with pytest.raises(NotFound):
            memory.sessions(after="nobody")

    # Pins and deletion.

    def test_a_pin_of_what_is_not_there_is_refused(self, session: Session) -> None:
        session.append("one")
        session.pin(1)
        session.pin(1)
        for seq in (0, 2, -1, 10**30):
            with pytest.raises(NotFound):
                session.pin(seq)
        with pytest.raises(InvalidSetting):
            session.pin("1")  # type: ignore[arg-type]

    def test_a_result_that_came_late_cannot_be_pinned(self, session: Session) -> None:
        session.append(
            Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), "never mind", Message.tool("found", tool_call_id="a")
        )
        assert session.entries()[-1].status == "late"
        with pytest.raises(InvalidSetting):
            session.pin(3)

    def test_deleting_a_session_leaves_all_else_as_it_was(self, memory: Memory) -> None:
        def fill(name: str, owner: str) -> Session:
            session = memory.session(name, owner=owner)
            session.append("one", "two", key="k")
            session.chat("three", key="c")
            session.pin(1)
            return session

        fill("kept", "ada"), fill("kept", "bob")
        before = self.rows(memory)
        fill("gone", "ada").delete()
        assert {table: rows for table, rows in self.rows(memory).items() if rows != before[table]} == {}
        assert [listed.name for listed in memory.sessions(owner="ada")] == ["kept"]

    def test_a_deleted_session_begins_anew(self, session: Session) -> None:
        session.append("one", key="k")
        session.delete()
        assert session.append("other", key="k")[0].seq == 1

    def test_deleting_an_owner_leaves_all_else_as_it_was(self, memory: Memory) -> None:
        memory.session("kept", owner="bob").chat("hello")
        before = self.rows(memory)
        for name in ("one", "two"):
            memory.session(name, owner="ada").chat("hello")
            memory.session(name, owner="ada").pin(1)
        assert memory.delete_owner("ada") == 2
        assert self.rows(memory) == before
        assert memory.delete_owner("ada") == 0

    def rows(self, memory: Memory) -> dict[str, list[str]]:
        """Every row there is, by table."""
        with memory.store.engine.connect() as connection:
            return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in metadata.sorted_tables}

    # Turns.

    def test_a_turn_stores_the_message_the_reply_and_the_call(self, session: Session) -> None:
        reply = session.chat("Hello")
        assert texts(session) == ["Hello", "reply to Hello"]
        assert reply.seq == 2
        assert [(call.turn_id, call.purpose, call.prompt_tokens > 0) for call in session.calls()] == [(1, "reply", True)]

    def test_a_turn_under_a_key_is_answered_once(self, session: Session) -> None:
        first = session.chat("Hello", key="k")
        session.chat("And more")
        assert session.chat("Hello", key="k").message == first.message
        assert len(texts(session)) == 4
        with pytest.raises(KeyReused):
            session.chat("Something else", key="k")

    def test_two_turns_of_a_session_never_interleave(self, session: Session) -> None:
        with session.turn("first") as turn:
            with pytest.raises(Conflict), session.turn("second", timeout=0):
                pass
            with pytest.raises(Conflict):
                session.append("aside", timeout=0)
            turn.finish("reply to first")
        session.chat("second")
        assert texts(session) == ["first", "reply to first", "second", "reply to second"]

    def test_whoever_lost_the_lease_writes_nothing(self, memory: Memory, session: Session) -> None:
        with session.turn("first") as turn:
            self.expire(memory)
            session.chat("second")
            for write in (lambda: turn.finish("too late"), lambda: turn.append(Message.assistant("too late"))):
                with pytest.raises(LeaseLost):
                    write()
        assert texts(session) == ["first", "second", "reply to second"]

    def expire(self, memory: Memory) -> None:
        """Let every lease end now."""
        with memory.store.engine.begin() as connection:
            connection.execute(update(turns).values(until_us=0))

    def test_a_past_context_is_made_again(self, session: Session) -> None:
        with session.stream("Hello") as stream:
            list(stream)
        session.chat("And more")
        assert session.context(as_of=1).messages == stream.context.messages

    def test_totals_add_up(self, session: Session) -> None:
        session.append(*(Message.user(f"message {number}" * number) for number in range(1, 20)))
        session.chat("Hello")
        entries: list[Entry] = session.entries()
        assert [entry.cum_tokens for entry in entries] == [sum(one.tokens for one in entries[: at + 1]) for at in range(len(entries))]
        assert json.loads(entries[0].body)["role"] == "user"
