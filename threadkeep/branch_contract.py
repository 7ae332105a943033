"""What holds for branches on every database: what is shared is one, what came after a fork is each branch's own."""

import pytest
from sqlalchemy import update

from threadkeep.memory.errors import Conflict, InvalidMessage, InvalidSetting, KeyReused, NotFound
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message, ToolCall
from threadkeep.memory.session import Session
from threadkeep.stores.schema import turns


def said(session: Session, branch: str | None = None) -> list[str]:
    """What the entries of the active branch, or of another, say."""
    return [entry.message.text for entry in session.entries(limit=10_000, branch=branch)]


def names(session: Session) -> list[str]:
    """The session's branches, the newest first."""
    return [branch.name for branch in session.branches()]


def pinned(memory: Memory, session: Session) -> list[int]:
    """The seqs that every context of the active branch has."""
    with memory.store.history(session.owner, session.name) as (history, _, _):
        return [entry.seq for entry in history.pinned()]


class BranchContract:
    """A part of `StoreContract`, whose fixtures it uses."""

    # Forks.

    def test_a_fork_shares_everything_up_to_its_point(self, session: Session) -> None:
        entries = session.append("one", Message.assistant("two"), "three", Message.assistant("four"))
        forked = session.fork("other", at=2)
        assert (forked.name, forked.parent, forked.at, forked.entries, forked.active) == ("other", "main", 2, 2, True)
        assert session.entries() == entries[:2]
        session.append("five")
        assert said(session) == ["one", "two", "five"]
        assert said(session, "main") == ["one", "two", "three", "four"]

    def test_a_fork_is_at_the_head_where_no_point_is_named_and_shares_nothing_at_0(self, session: Session) -> None:
        session.append("one", "two")
        assert session.fork("all").entries == 2
        alone = session.fork("none", at=0)
        assert (alone.parent, alone.at, alone.entries, alone.tokens) == (None, 0, 0, 0)
        assert session.append("first")[0].seq == 1
        assert said(session) == ["first"]

    def test_a_fork_of_a_fork_goes_along_both(self, session: Session) -> None:
        session.append(*map(str, range(1, 7)))
        session.fork("second", at=4)
        session.append("a", "b", "c")
        third = session.fork("third", at=6)
        session.append("x")
        assert said(session) == ["1", "2", "3", "4", "a", "b", "x"]
        assert third.parent == "second"
        fourth = session.fork("fourth", at=3)
        assert (fourth.parent, said(session)) == ("main", ["1", "2", "3"])
        assert session.entries(after=2) == session.entries(branch="second")[2:3]

    def test_a_branch_goes_on_where_a_switch_leads(self, session: Session) -> None:
        session.append("one", "two")
        session.fork("other", at=1)
        session.append("three")
        assert session.switch("main").active
        session.append("four")
        assert said(session) == ["one", "two", "four"]
        assert session.switch("other").entries == 2
        assert said(session) == ["one", "three"]
        assert session.switch("other").name == "other"

    def test_sessions_are_counted_on_their_active_branch(self, memory: Memory, session: Session) -> None:
        session.append("one", "two", "three")
        tokens = memory.sessions(owner="ada")[0].tokens
        session.fork("other", at=1)
        (listed,) = memory.sessions(owner="ada")
        assert (listed.entries, listed.tokens < tokens) == (1, True)
        session.switch("main")
        assert memory.sessions(owner="ada")[0].tokens == tokens

    def test_what_cannot_be_forked_or_switched_to_is_refused_and_changes_nothing(self, session: Session) -> None:
        for missing in (lambda: session.fork("x"), lambda: session.edit(1, "x"), lambda: session.switch("main"), session.branches):
            with pytest.raises(NotFound):
                missing()
        session.append("one", "two")
        for seq in (3, -1, 10**30):
            with pytest.raises(NotFound):
                session.fork("x", at=seq)
            with pytest.raises(NotFound):
                session.edit(seq, "x")
        with pytest.raises(NotFound):
            session.edit(0, "x")
        for name in ("main", "", "a\0b", "half \ud83d", "x" * 256, 7):
            with pytest.raises(InvalidSetting):
                session.fork(name)  # type: ignore[arg-type]
            with pytest.raises(InvalidSetting):
                session.edit(1, "x", name=name)  # type: ignore[arg-type]
        for at in ("1", 1.0, True):
            with pytest.raises(InvalidSetting):
                session.fork("x", at=at)  # type: ignore[arg-type]
            with pytest.raises(InvalidSetting):
                session.edit(at, "x")  # type: ignore[arg-type]
        with pytest.raises(InvalidMessage):
            session.edit(1, {"role": "nobody", "content": "x"})
        for read in (lambda: session.switch("Main"), lambda: session.entries(branch="other"), lambda: session.branches(after="other")):
            with pytest.raises(NotFound):
                read()
        assert names(session) == ["main"]
        assert said(session) == ["one", "two"]

    def test_names_of_branches_that_look_alike_never_mix(self, session: Session) -> None:
        session.append("one")
        wanted = "other|Other|other |óther|o\u0301ther|other\t|%|_|'|🙂".split("|")
        for name in wanted:
            session.fork(name, at=0)
            session.append(name)
        assert sorted(names(session)) == sorted(["main", *wanted])
        for name in wanted:
            session.switch(name)
            assert said(session) == [name]

    def test_branches_come_by_page_the_newest_first(self, session: Session) -> None:
        session.append("one")
        for number in range(6):
            session.fork(f"fork {number}")
            session.append(str(number))
        every = session.branches()
        assert {branch.name for branch in every} == {"main", *(f"fork {number}" for number in range(6))}
        assert [branch.active for branch in every].count(True) == 1
        seen: list[str] = []
        while page := session.branches(after=seen[-1] if seen else None, limit=3):
            seen += [branch.name for branch in page]
        assert seen == [branch.name for branch in every]
        assert {branch.name: branch.parent for branch in every}["fork 3"] == "fork 2"

    # Edits.

    def test_an_edit_puts_a_message_in_the_place_of_another(self, session: Session) -> None:
        session.append("one", Message.assistant("two"), "three")
        entry = session.edit(2, Message.assistant("second"), name="better", metadata={"source": "review"})
        assert (entry.seq, entry.message.text, entry.metadata) == (2, "second", {"source": "review"})
        assert said(session) == ["one", "second"]
        assert said(session, "main") == ["one", "two", "three"]
        newest = session.branches()[0]
        assert (newest.name, newest.parent, newest.at) == ("better", "main", 1)

    def test_edits_without_a_name_get_one_each(self, session: Session) -> None:
        session.append("one", "two")
        for number in range(20):
            session.edit(2, f"edit {number}")
        made = set(names(session)) - {"main"}
        assert len(made) == 20
        assert all(name.startswith("2-edit-") and len(name) < 20 for name in made)

    def test_leading_instructions_can_be_edited(self, session: Session) -> None:
        session.append(Message.system("Be kind."), Message.system("Be short."), "Hello")
        session.edit(1, Message.system("Be strict."))
        assert [message["content"] for message in session.context("Hi").messages] == ["Be strict.", "Hi"]
        session.switch("main")
        session.edit(2, Message.system("Be long."))
        session.append("Hello again")
        assert [message["content"] for message in session.context().messages] == ["Be kind.", "Be long.", "Hello again"]

    def test_an_edited_call_leaves_its_results_behind_and_an_edited_result_joins_its_call(self, session: Session) -> None:
        ask = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}"), ToolCall("b", "look", "{}")])
        session.append("Look.", ask, Message.tool("left", tool_call_id="a"), Message.tool("right", tool_call_id="b"), "And?")
        session.edit(4, Message.tool("wrong", tool_call_id="b"))
        assert [entry.status for entry in session.entries()] == ["complete"] * 4
        assert [message["content"] for message in session.context("So?").messages] == ["Look.", None, "left", "wrong", "So?"]
        session.switch("main")
        session.fork("open", at=3)
        (late, joined) = session.append(Message.tool("right", tool_call_id="b"), Message.tool("again", tool_call_id="b"))
        assert (late.status, late.group_seq, joined.status) == ("complete", 2, "late")
        session.fork("behind", at=5)
        assert session.append(Message.tool("more", tool_call_id="b"))[0].status == "late"
        session.switch("main")
        session.edit(2, Message.assistant(None, tool_calls=[ToolCall("c", "look", "{}")]))
        messages = session.context("So?").messages
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
        assert "no result" in str(messages[2]["content"])

    # What each branch has for itself.

    def test_a_pin_is_seen_by_later_forks_and_by_no_earlier_one(self, memory: Memory, session: Session) -> None:
        session.append(*map(str, range(1, 9)))
        session.pin(2)
        session.fork("early", at=4)
        session.switch("main")
        session.pin(3)  # at the same head
        session.pin(7)
        session.fork("late", at=4)
        assert pinned(memory, session) == [2, 3]
        session.pin(4)
        session.switch("main")
        assert pinned(memory, session) == [2, 3, 7]
        session.switch("early")
        assert pinned(memory, session) == [2]
        session.fork("of early", at=2)
        assert pinned(memory, session) == [2]

    def test_a_key_that_was_used_after_a_fork_is_free_on_it(self, session: Session) -> None:
        before = session.append("one", key="before")
        session.append("two", key="after")
        session.fork("other", at=1)
        assert session.append("one", key="before") == before
        with pytest.raises(KeyReused):
            session.append("other", key="before")
        session.append("second", key="after")
        assert said(session) == ["one", "second"]
        session.fork("third")
        assert session.append("second", key="after")[0].seq == 2
        session.switch("main")
        assert session.append("two", key="after")[0].seq == 2
        assert said(session) == ["one", "two"]

    def test_a_batch_that_a_fork_cut_in_two_is_not_taken_for_whole(self, session: Session) -> None:
        session.append("one", "two", "three", key="k")
        session.fork("other", at=2)
        session.append("four")
        with pytest.raises(KeyReused, match="forked in their middle"):
            session.append("one", "two", "three", key="k")
        assert said(session) == ["one", "two", "four"]

    def test_a_search_sees_its_own_branch(self, session: Session) -> None:
        session.append("a parcel", "a letter")
        session.fork("other", at=1)
        session.append("a second parcel")
        assert {found.entry.message.text for found in session.search("parcel letter")} == {"a parcel", "a second parcel"}
        session.switch("main")
        assert {found.entry.message.text for found in session.search("parcel letter")} == {"a parcel", "a letter"}

    def test_a_search_in_all_sessions_sees_their_active_branches(self, memory: Memory, session: Session) -> None:
        session.append("a parcel", "a letter")
        other = memory.session("other", owner="ada")
        other.append("what of it?")
        session.fork("fork", at=1)
        session.append("a stamp")
        found = {(one.session, one.entry.message.text) for one in other.search("parcel letter stamp", scope="owner")}
        assert found == {("chat", "a parcel"), ("chat", "a stamp")}

    # Turns.

    def test_a_turn_keeps_the_session_on_its_branch(self, session: Session) -> None:
        session.append("one")
        session.fork("other")
        with session.turn("Hello") as turn:
            for change in (
                lambda: session.fork("x", timeout=0),
                lambda: session.edit(1, "x", timeout=0),
                lambda: session.switch("main", timeout=0),
            ):
                with pytest.raises(Conflict):
                    change()
            turn.finish("Hello to you")
        assert said(session) == ["one", "Hello", "Hello to you"]
        session.switch("main")
        assert said(session) == ["one"]

    def test_a_dead_holders_turn_ends_on_its_branch_before_a_switch(self, memory: Memory, session: Session) -> None:
        session.append("one")
        session.fork("other")
        with session.turn("Hello") as turn:
            turn._draft_saved = 0.0
            turn.draft("Hello to")
            with memory.store.engine.begin() as connection:
                connection.execute(update(turns).values(until_us=0))
            session.switch("main")
            with pytest.raises(Conflict):
                turn.finish("Hello to you")
        assert said(session) == ["one"]
        assert said(session, "other") == ["one", "Hello", "Hello to"]
        assert session.entries(branch="other")[-1].status == "interrupted"

    def test_a_past_context_is_made_again_from_its_own_branch(self, session: Session) -> None:
        session.chat("one")
        with session.stream("two") as first:
            list(first)
        session.fork("other", at=2)
        with session.stream("second") as second:
            list(second)
        assert session.context(as_of=2).messages == first.context.messages
        session.switch("main")
        assert session.context(as_of=3).messages == second.context.messages
        assert [decision.last for decision in session.context(as_of=3).decisions][-1] == 3

    def test_a_key_is_answered_by_a_turn_of_its_own_branch_only(self, session: Session) -> None:
        session.chat("one")
        first = session.chat("two", key="k")
        session.fork("with", at=4)
        assert session.chat("two", key="k").seq == first.seq
        session.fork("without", at=2)
        assert session.chat("two", key="k").seq == 4
        assert [entry.seq for entry in session.entries()] == [1, 2, 3, 4]
        session.switch("main")
        assert session.chat("two", key="k").message == first.message
        assert len(session.entries()) == 4

    def test_the_last_message_is_answered_anew_on_a_branch_behind_it(self, memory: Memory, session: Session) -> None:
        session.chat("one")
        first = session.chat("two")
        again = session.regenerate()
        assert (again.seq, again.text) == (first.seq, first.text)
        (newest, _) = session.branches()
        assert (newest.name, newest.parent, newest.at, newest.entries) == ("3-again-3", "main", 3, 4)
        for _ in range(5):
            session.regenerate()
        assert {branch.at for branch in session.branches()} == {0, 3}, "never a fork of a fork"
        assert {branch.parent for branch in session.branches()} == {None, "main"}
        row = memory.store.session("ada", "chat")
        assert row is not None
        assert len(row.segments) == 2
        assert [call.turn_id for call in session.calls()] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert session.chat("three").seq == 6

    def test_a_message_without_an_answer_is_answered_where_it_is(self, session: Session) -> None:
        session.append("one", Message.assistant("two"), "three")
        assert session.regenerate().text == "reply to three"
        assert names(session) == ["main"]
        session.edit(3, "third")
        with session.turn(None) as turn:
            assert (turn.id, turn.user.seq, turn.user.message.text) == (2, 3, "third")
            assert [message["content"] for message in turn.messages] == ["one", "two", "third"]
            turn.finish("reply")
        assert said(session) == ["one", "two", "third", "reply"]

    def test_an_answer_of_many_steps_is_replaced_as_a_whole(self, session: Session) -> None:
        with session.turn("Look.") as turn:
            assert turn.request
            turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("left", tool_call_id="a"))
            turn.finish("It is left.")
        with session.stream(None) as stream:
            list(stream)
        assert said(session) == ["Look.", "reply to Look."]
        assert [message["content"] for message in stream.context.messages] == ["Look."]
        assert stream.context.cache_note == "begins as the turn before"

    def test_a_turn_that_was_left_is_answered_where_it_is_or_on_a_branch_if_something_was_said(self, session: Session) -> None:
        with session.turn("one", key="k"):
            pass
        assert session.regenerate().seq == 2
        assert names(session) == ["main"]
        assert session.chat("one", key="k").seq == 2
        with session.turn("two", key="l") as turn:
            turn._draft_saved = 0.0
            turn.draft("as I was say")
        assert session.regenerate().seq == 4
        assert said(session) == ["one", "reply to one", "two", "reply to two"]
        assert said(session, "main")[-1] == "as I was say"
        assert session.chat("two", key="l").seq == 4
        session.switch("main")
        assert session.chat("two", key="l").seq == 5
        assert [call.turn_id for call in session.calls()] == [2, 4, 5]

    def test_what_cannot_be_answered_anew_is_refused(self, memory: Memory, session: Session) -> None:
        with pytest.raises(NotFound):
            session.regenerate()
        assert memory.sessions(owner="ada") == []
        session.append(Message.system("You help."), Message.assistant("Hello."))
        with pytest.raises(NotFound):
            session.regenerate()
        session.append("one")
        with pytest.raises(InvalidSetting):
            session.turn(None, key="k")
        with pytest.raises(InvalidSetting):
            session.chat(None, metadata={"a": 1})
        with session.turn("two"), pytest.raises(Conflict):
            session.regenerate(timeout=0)
        assert names(session) == ["main"]

    def test_a_key_that_names_a_regenerated_turn_gets_the_answer_of_its_branch(self, session: Session) -> None:
        session.chat("one", key="k")
        with session.turn(None) as turn:
            assert turn.request
            turn.finish("another answer")
        assert session.chat("one", key="k").text == "another answer"
        session.switch("main")
        assert session.chat("one", key="k").text == "reply to one"
        session.fork("empty", at=1)
        with session.turn("one", key="k") as turn:
            assert (turn.id, len(turn.messages)) == (3, 1)
            turn.finish("a third answer")
        assert session.chat("one", key="k").text == "a third answer"
        assert session.context(as_of=1).messages == session.context(as_of=2).messages == session.context(as_of=3).messages

    def test_a_deleted_session_leaves_no_branch(self, memory: Memory, session: Session) -> None:
        session.append("one", key="k")
        session.pin(1)
        session.fork("other")
        session.append("two", key="l")
        session.delete()
        session.append("three", key="k")
        assert names(session) == ["main"]
        assert pinned(memory, session) == []
