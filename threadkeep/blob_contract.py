"""What holds for pictures and files on every database: kept once an owner, apart from the messages, and whole where a model sees them."""

import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest
from sqlalchemy import delete, event, func, select

from threadkeep.memory.blob import Blob
from threadkeep.memory.budget import Budget
from threadkeep.memory.errors import InvalidMessage, InvalidSetting, KeyReused, NotFound, StoreError
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import ImagePart, Message, MessageLike, TextPart
from threadkeep.memory.session import Session
from threadkeep.stores.schema import blobs, messages, uses

PNG = "image/png"
PICTURE = Random(1).randbytes(1000)
OTHER = Random(2).randbytes(1000)


def data_url(data: bytes, media_type: str = PNG) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def showing(*pictures: bytes, says: str = "What is this?") -> Message:
    """A user's message with pictures."""
    return Message.user([TextPart(says), *(ImagePart.from_bytes(data, PNG) for data in pictures)])


def blob_of(message: Message, at: int = 1) -> Blob:
    """What the store keeps of a message's part."""
    part = message.parts[at]
    assert isinstance(part, ImagePart)
    assert part.blob is not None
    return part.blob


class BlobContract:
    """Part of `StoreContract`, which has the fixtures."""

    @contextmanager
    def statements(self, memory: Memory) -> Iterator[list[str]]:
        """What is executed meanwhile."""
        seen: list[str] = []

        def note(_1: object, _2: object, statement: str, *_: object) -> None:
            seen.append(statement)

        event.listen(memory.store.engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(memory.store.engine, "before_cursor_execute", note)

    def kept(self, memory: Memory) -> list[tuple[str, int]]:
        """Media types and sizes of all pictures and files, those of the largest first."""
        length = func.length(blobs.c.bytes)
        with memory.store.engine.connect() as connection:
            rows = connection.execute(select(blobs.c.media_type, length).where(blobs.c.media_type != "application/json"))
            return sorted(map(tuple, rows), key=lambda row: -row[1])

    # Once an owner, apart from the messages.

    def test_a_picture_is_kept_once_an_owner(self, memory: Memory, session: Session) -> None:
        given: list[MessageLike] = [
            showing(PICTURE),
            Message.user([TextPart("Again"), ImagePart(data_url(PICTURE), "low")]),
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(PICTURE)}}]},
            Message.user([TextPart("Twice"), ImagePart.from_bytes(PICTURE, PNG), ImagePart.from_bytes(PICTURE, PNG)]),
        ]
        (first, *_) = session.append(*given)
        memory.session("other", owner="ada").append(first.message)
        assert self.kept(memory) == [(PNG, 1000)]
        memory.session("chat", owner="bob").append(showing(PICTURE))
        assert self.kept(memory) == [(PNG, 1000)] * 2

    def test_a_stored_message_is_small_whatever_it_shows(self, memory: Memory, session: Session) -> None:
        session.append(showing(Random(3).randbytes(3_000_000), OTHER), showing(PICTURE))
        with memory.store.engine.connect() as connection:
            assert max(map(len, connection.execute(select(messages.c.body)).scalars())) < 500
        assert self.kept(memory) == [(PNG, 3_000_000), (PNG, 1000), (PNG, 1000)]

    def test_a_message_says_what_it_shows_and_the_session_has_the_bytes(self, session: Session) -> None:
        (appended,) = session.append(Message.user([TextPart("Look"), ImagePart(data_url(PICTURE, "image/webp"), "high", {"cache": 1})]))
        (entry,) = session.entries()
        assert entry == appended
        assert entry.message == appended.message
        part = entry.message.parts[1]
        assert isinstance(part, ImagePart)
        assert part.blob is not None
        assert (part.blob.media_type, part.blob.size, part.detail, part.extra) == ("image/webp", 1000, "high", {"cache": 1})
        for named in (part, part.blob, part.url):
            assert session.blob(named) == PICTURE

    def test_reading_entries_reads_no_picture(self, memory: Memory, session: Session) -> None:
        session.append(*(showing(Random(seed).randbytes(2000), says=f"the hen number {seed}") for seed in range(20)))
        with self.statements(memory) as seen:
            assert len(session.entries()) == 20
            assert session.search("hen")
            memory.sessions(owner="ada")
            session.pin(3)
        assert seen
        assert not [statement for statement in seen if "blobs" in statement]

    def test_a_conversation_without_pictures_never_asks_for_any(self, memory: Memory, session: Session) -> None:
        session.append("Hello")
        with self.statements(memory) as seen:
            session.append({"role": "user", "content": [{"type": "text", "text": "in parts"}]})
            session.append(Message.user([ImagePart("https://example.org/hen.png")]))
            session.context("And now?")
        assert not [statement for statement in seen if "blobs" in statement or "uses" in statement]

    def test_the_texts_of_turns_are_looked_for_once_a_turn_and_written_once(self, memory: Memory, session: Session) -> None:
        session.chat("one", instructions="Be kind.")
        with self.statements(memory) as seen:
            session.chat("two", instructions="Be kind.")
        touching = [statement for statement in seen if "_blobs" in statement or "_uses" in statement]
        assert len(touching) == 1
        assert touching[0].startswith("SELECT")

    # Where a model sees them.

    def test_a_context_has_the_picture_again_with_one_statement(self, memory: Memory, session: Session) -> None:
        given = [
            showing(PICTURE),
            Message.assistant("A hen."),
            showing(OTHER, PICTURE),
            Message.user([ImagePart("https://example.org/a.png")]),
        ]
        session.append(*given)
        with self.statements(memory) as seen:
            context = session.context(budget=Budget(10_000))
        assert context.messages == [message.to_dict() for message in given]
        assert len([statement for statement in seen if "blobs" in statement]) == 1

    def test_a_picture_counts_the_same_however_large_it_is(self, session: Session) -> None:
        small, large = session.append(showing(b"x"), showing(Random(3).randbytes(300_000)))
        assert small.tokens == large.tokens

    def test_a_picture_that_is_only_supposed_is_in_the_context_and_not_stored(self, memory: Memory, session: Session) -> None:
        session.append("Hello", showing(OTHER))
        context = session.context(showing(PICTURE, OTHER))
        assert context.messages[-1] == showing(PICTURE, OTHER).to_dict()
        assert self.kept(memory) == [(PNG, 1000)]

    def test_a_turn_with_a_picture_is_sent_and_made_again(self, session: Session) -> None:
        given: list[MessageLike] = [
            showing(PICTURE),
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(OTHER), "detail": "low"}, "beside": [1]}]},
        ]
        sent = []
        for number, message in enumerate(given):
            with session.turn(message, key=f"k{number}") as turn:
                assert turn.user == session.entries()[-1]
                sent.append(turn.messages)
                turn.finish("A hen.")
        assert [messages[-1] for messages in sent] == [given[0].to_dict() if isinstance(given[0], Message) else given[0], given[1]]
        assert [session.context(as_of=turn_id).messages for turn_id in (1, 2)] == sent
        session.append(showing(OTHER, says="later"))
        assert [session.context(as_of=turn_id).messages for turn_id in (1, 2)] == sent

    def test_a_reply_and_a_result_may_show_pictures(self, session: Session) -> None:
        picture = {"type": "image_url", "image_url": {"url": data_url(PICTURE)}}
        call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        with session.turn("Draw a hen.", key="k") as turn:
            turn.append(
                {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": [picture]}
            )
            assert turn.messages[-1]["content"] == [picture]
            reply = turn.finish({"role": "assistant", "content": [picture]})
        with session.turn("Draw a hen.", key="k") as again:
            assert again.reply is not None
            assert again.reply.message == reply.message
        assert session.blob(reply.message.parts[0]) == PICTURE  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "input_image", "image_url": data_url(PICTURE), "detail": "auto"},
            {"type": "file", "file": {"file_data": data_url(PICTURE, "application/pdf"), "filename": "hens.pdf"}},
            {"type": "input_audio", "input_audio": {"data": b64encode(PICTURE).decode(), "format": "wav"}},
            {"type": "video", "frames": [{"url": data_url(PICTURE, "image/jpeg")}, {"url": data_url(OTHER, "image/jpeg")}]},
        ],
        ids=lambda part: part["type"],
    )
    def test_other_parts_keep_their_bytes_apart_too(self, memory: Memory, session: Session, part: dict[str, object]) -> None:
        (entry,) = session.append({"role": "user", "content": [part]})
        assert len(entry.body) < 500
        assert self.kept(memory)[0][1] == 1000
        assert session.context().messages == [{"role": "user", "content": [part]}]
        assert session.context().tokens == entry.tokens + session.context().overhead

    def test_what_is_short_or_cannot_be_made_again_stays_in_its_part(self, memory: Memory, session: Session) -> None:
        parts = [
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": b64encode(PICTURE).decode().rstrip("=") + "\n", "format": "wav"}},
            {"type": "file", "file": {"file_data": data_url(PICTURE).replace("base64", "BASE64")}},
            {"type": "thinking", "thinking": "data:text/plain;base64,no!"},
        ]
        session.append({"role": "user", "content": parts})
        assert session.entries()[0].raw["content"] == parts
        assert self.kept(memory) == []

    def test_text_that_looks_like_an_address_stays_text(self, session: Session) -> None:
        (shown,) = session.append(showing(PICTURE))
        address = blob_of(shown.message).url
        given: list[MessageLike] = [address, {"role": "user", "content": [{"type": "text", "text": address}], "note": address}]
        session.append(*given)
        assert [entry.message.text for entry in session.entries(after=1)] == [address] * 2
        assert [message["content"] for message in session.context().messages[1:]] == [address, [{"type": "text", "text": address}]]

    # Keys.

    def test_a_key_stands_for_the_picture_however_it_comes(self, session: Session) -> None:
        first = session.append(showing(PICTURE), key="k")
        assert session.append(showing(PICTURE), key="k") == first
        assert session.append(first[0].message, key="k") == first
        with pytest.raises(KeyReused):
            session.append(showing(OTHER), key="k")
        assert len(session.entries()) == 1

    # What is refused.

    @pytest.mark.parametrize(
        "url",
        [
            "data:image/png;base64,no base64!",
            "data:image/png;base64,",
            "data:image/png;base64",
            "data:image/png,rawbytes",
            "data:application/pdf;base64,AAAA",
            "data:;base64,AAAA",
            "data:image/p\ud800;base64,AAAA",
            "DATA:image/png;charset=utf-8,AAAA",
            "data:image/" + "x" * 300 + ";base64,AAAA",
            "data:image/png;base64,AAAA\u00e9",
        ],
    )
    def test_a_data_url_that_is_no_picture_is_refused(self, memory: Memory, session: Session, url: str) -> None:
        bad = Message.user([TextPart("Look"), ImagePart(url)])
        refused: list[tuple[Callable[[], object], str]] = [
            (lambda: session.append("fine", bad), "messages[1].content[1].image_url.url"),
            (lambda: session.chat(bad), "message.content[1].image_url.url"),
            (lambda: session.context(bad), "message.content[1].image_url.url"),
        ]
        for call, field in refused:
            with pytest.raises(InvalidMessage) as caught:
                call()
            assert caught.value.field == field
            assert len(str(caught.value)) < 250
        assert memory.sessions(owner="ada") == []

    @pytest.mark.parametrize("url", ["data:image/png;base64,AAA", "DATA:image/png;BASE64,AA\r\nA=", "data:image/png;base64,A A A ="])
    def test_base64_is_read_as_browsers_read_it(self, session: Session, url: str) -> None:
        session.append(Message.user([ImagePart(url)]))
        assert session.context().messages[0]["content"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAA="}}]

    def test_what_another_owner_has_can_be_neither_named_nor_read(self, memory: Memory, session: Session) -> None:
        (entry,) = session.append(showing(PICTURE))
        other = memory.session("chat", owner="bob")
        other.append("Hello")
        part = entry.message.parts[1]
        assert isinstance(part, ImagePart)
        with pytest.raises(NotFound):
            other.blob(part)
        with pytest.raises(NotFound):
            other.context(entry.message)
        with pytest.raises(InvalidMessage) as caught:
            other.append("fine", entry.message)
        assert caught.value.field == "messages[1].content[1].image_url.url"
        assert [one.message.text for one in other.entries()] == ["Hello"]
        wrong = part.url.replace("/1000/", "/999/")
        with pytest.raises(InvalidMessage):
            session.append(Message.user([ImagePart(wrong)]))

    @pytest.mark.parametrize("named", ["", "a" * 64, "https://example.org/a.png", ImagePart("https://example.org/a.png"), None, 7])
    def test_what_names_no_blob_is_refused(self, session: Session, named: str) -> None:
        with pytest.raises(InvalidSetting):
            session.blob(named)

    def test_a_reply_that_names_what_is_not_there_leaves_the_turn_to_be_finished(self, session: Session) -> None:
        address = Blob("0" * 64, 7, PNG).url
        with session.turn("Hello") as turn:
            with pytest.raises(InvalidMessage) as caught:
                turn.finish({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": address}}]})
            assert caught.value.field == "reply.content[0].image_url.url"
            turn.finish("Hello yourself.")
        assert [entry.message.text for entry in session.entries()] == ["Hello", "Hello yourself."]

    def test_a_picture_that_was_deleted_by_hand_is_said_to_be_missing(self, memory: Memory, session: Session) -> None:
        session.append("Hello", showing(PICTURE))
        with session.turn("What is it?") as turn:
            assert turn.messages
            turn.finish("A hen.")
        with memory.store.engine.begin() as connection:
            connection.execute(delete(blobs).where(blobs.c.media_type == PNG))
        for as_of in (None, 1):
            with pytest.raises(NotFound, match="entry 2 shows a picture"):
                session.context(as_of=as_of)
        assert len(session.entries()) == 4
        session.append(showing(PICTURE))
        assert session.context().messages[1] == showing(PICTURE).to_dict()

    # Several at once.

    def test_sessions_that_add_the_same_pictures_at_once_all_keep_them(self, memory: Memory) -> None:
        pictures = [Random(seed).randbytes(20_000) for seed in range(6)]
        failed: list[BaseException] = []
        together = threading.Barrier(4)

        def add(number: int) -> None:
            session = memory.session(f"session {number}", owner="ada")
            session.append("Hello")
            shown = pictures if number % 2 else pictures[::-1]
            together.wait(30)
            try:
                for _ in range(3):
                    session.append(showing(*shown))
            except BaseException as error:
                failed.append(error)
                raise

        memory.session("first", owner="ada").append("Hello")
        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []
        assert self.kept(memory) == [(PNG, 20_000)] * 6
        for number in range(4):
            (last,) = memory.session(f"session {number}", owner="ada").entries(after=3)
            assert len(last.message.parts) == 7

    def test_a_picture_that_is_added_again_while_its_last_use_is_deleted_is_there(self, memory: Memory) -> None:
        for number in range(8):
            memory.session("old", owner="ada").append(showing(PICTURE))
            new = memory.session(f"new {number}", owner="ada")
            new.append("Hello")
            threads = [
                threading.Thread(target=memory.session("old", owner="ada").delete),
                threading.Thread(target=new.append, args=(showing(PICTURE),)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            (_, entry) = new.entries()
            assert new.blob(blob_of(entry.message)) == PICTURE
            new.delete()
            assert self.kept(memory) == []

    # Deletion.

    def test_a_deleted_session_leaves_what_others_use_and_nothing_else(self, memory: Memory) -> None:
        for name, picture in (("kept", PICTURE), ("gone", PICTURE), ("gone", OTHER)):
            session = memory.session(name, owner="ada")
            session.append(showing(picture))
            with session.turn("What is it?", instructions=f"Be kind to {name}.") as turn:
                assert turn.messages
                turn.finish("A hen.")
        memory.session("gone", owner="bob").append(showing(OTHER))
        memory.session("gone", owner="ada").delete()
        assert self.kept(memory) == [(PNG, 1000)] * 2
        with memory.store.engine.connect() as connection:
            kept_now = set(map(tuple, connection.execute(select(blobs.c.owner_id, blobs.c.sha256))))
            assert kept_now == set(map(tuple, connection.execute(select(uses.c.owner_id, uses.c.sha256))))
        kept = memory.session("kept", owner="ada")
        assert kept.context(as_of=1).messages[0]["content"] == "Be kind to kept."
        kept.delete()
        memory.delete_owner("bob")
        with memory.store.engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(blobs)).scalar_one() == 0
            assert connection.execute(select(func.count()).select_from(uses)).scalar_one() == 0

    @pytest.mark.parametrize("size", [5_000_000, 20_000_000])
    def test_a_large_picture_comes_back_whole_or_the_setting_that_forbids_it_is_named(
        self, memory: Memory, session: Session, size: int
    ) -> None:
        session.append("Hello")
        picture, most = Random(size).randbytes(size), size * 2
        if memory.store.engine.dialect.name == "mysql":
            with memory.store.engine.connect() as connection:
                most = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
        if most < size * 4 // 3:
            with pytest.raises(StoreError, match="max_allowed_packet"):
                session.append(showing(picture))
            assert (len(session.entries()), self.kept(memory)) == (1, [])
            session.append("The session goes on.")
        else:
            (entry,) = session.append(showing(picture))
            assert session.blob(blob_of(entry.message)) == picture
            assert session.context().messages[1] == showing(picture).to_dict()
