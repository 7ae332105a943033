"""Turns: who holds a session, what a dead holder leaves, who may still write, what the same key gives."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count, islice

import pytest

from threadkeep import (
    Budget,
    Conflict,
    InvalidSetting,
    KeyReused,
    LeaseLost,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    ToolCall,
    Turn,
)
from threadkeep.memory.holder import is_dead, new_holder
from threadkeep.memory.leases import keeper
from threadkeep.memory.waiting import FIRST_LOOK, LONGEST_LOOK, waits


def said(session: Session) -> list[tuple[str, str]]:
    """Who said what; a cut reply is marked."""
    cut = {"interrupted": "…"}
    return [(entry.role, entry.message.text + cut.get(entry.status, "")) for entry in session.entries(limit=1000)]


def fail(_: object) -> None:
    """Fail as the client of a model may."""
    raise ZeroDivisionError


def expire(memory: Memory) -> None:
    """Let every lease end now, as after 30 s without a sign of life."""
    with memory.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE threadkeep_turns SET until_us = 0")


# The lease.


def test_a_second_turn_waits_for_the_first(session: Session) -> None:
    def second() -> None:
        session.chat("second")

    with session.turn("first") as turn:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        turn.finish("reply to first")
    thread.join()
    assert said(session) == [("user", "first"), ("assistant", "reply to first"), ("user", "second"), ("assistant", "reply to second")]


def test_waiting_in_vain_is_a_conflict_that_says_how_long(session: Session) -> None:
    with session.turn("first"):
        began = time.monotonic()
        with pytest.raises(Conflict, match=r"turn 1.*0\.2 s"), session.turn("second", timeout=0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 5
        with pytest.raises(Conflict, match=r"0\.1 s"):
            session.append("aside", timeout=0.1)
    assert said(session) == [("user", "first")]


def test_a_timeout_of_0_does_not_wait(session: Session) -> None:
    with session.turn("first"):
        began = time.monotonic()
        with pytest.raises(Conflict), session.turn("second", timeout=0):
            pass
        assert time.monotonic() - began < 1


def test_who_is_overtaken_looks_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    patient = list(islice(waits(60, lambda: 7), 40))
    assert patient == sorted(patient)
    assert (patient[0], patient[-1]) == (FIRST_LOOK, LONGEST_LOOK)
    turns = count(7)
    overtaken = list(islice(waits(60, lambda: next(turns)), 400))
    assert overtaken[39] == pytest.approx(LONGEST_LOOK / (1 + 38 / 4))
    assert overtaken[-1] == FIRST_LOOK


@pytest.mark.parametrize("timeout", [-1, float("nan"), None, "1"])
def test_a_timeout_is_a_number_of_seconds(session: Session, timeout: float) -> None:
    with pytest.raises(InvalidSetting, match="timeout"), session.turn("first", timeout=timeout):
        pass
    with pytest.raises(InvalidSetting, match="timeout"):
        session.append("first", timeout=timeout)


def test_turns_of_other_sessions_do_not_wait(memory: Memory, session: Session) -> None:
    with (
        session.turn("first"),
        memory.session("chat", owner="bob").turn("first", timeout=0),
        memory.session("other").turn("first", timeout=0),
    ):
        pass


def test_a_lease_that_ended_is_taken_over(memory: Memory, session: Session) -> None:
    with session.turn("first"):
        expire(memory)
        assert session.chat("second", timeout=0).text == "reply to second"
    assert said(session) == [("user", "first"), ("user", "second"), ("assistant", "reply to second")]


def test_a_held_turn_holds_its_lease_on(memory: Memory, session: Session) -> None:
    with session.turn("first") as turn:
        expire(memory)
        keeper.round()
        with pytest.raises(Conflict), session.turn("second", timeout=0):
            pass
        turn.finish("reply to first")
    assert len(said(session)) == 2


def test_a_turn_that_nobody_refers_to_is_not_held_on(memory: Memory, session: Session) -> None:
    turn = session.turn("first")
    turn.__enter__()
    del turn
    expire(memory)
    keeper.round()
    assert session.chat("second", timeout=0).text == "reply to second"


def test_the_keeper_lets_go_of_a_turn_that_was_taken_over(memory: Memory, session: Session) -> None:
    with session.turn("first") as turn:
        expire(memory)
        session.chat("second")
        keeper.round()
        keeper.round()
        with pytest.raises(LeaseLost):
            turn.finish("too late")


def test_the_keeper_outlives_a_database_that_fails(memory: Memory, session: Session) -> None:
    with session.turn("first") as turn:
        with memory.store.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE threadkeep_turns RENAME TO hidden")
        keeper.round()
        with memory.store.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO threadkeep_turns")
        expire(memory)
        keeper.round()
        with pytest.raises(Conflict), session.turn("second", timeout=0):
            pass
        turn.finish("reply to first")


def test_a_holder_is_dead_only_where_that_is_known() -> None:
    mine = new_holder()
    machine, pid, started, _ = mine.split("|")
    assert not is_dead(mine)
    assert is_dead(f"{machine}|{pid}|{int(started) + 1}|x")  # the number was given to another process
    assert is_dead(f"{machine}|{2**22 + 1}|{started}|x")  # above every number that Linux gives
    assert not is_dead(f"another machine|{2**22 + 1}|{started}|x")
    assert new_holder() != mine


DIE = """
import os, sys, time
from threadkeep import Budget, Memory, TiktokenCounter
from threadkeep.memory import turn as turns

turns.DRAFT_SECONDS = 0.0
memory = Memory(sys.argv[1], counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500))
with memory.session("chat", owner="ada").turn("first", key="k") as turn:
    turn.context
    for text in sys.argv[2:]:
        turn.draft(text)
    os.kill(os.getpid(), 9)
"""


def die(url: str, *drafts: str) -> None:
    """Be killed in a turn, in another process, these drafts saved."""
    assert subprocess.run([sys.executable, "-c", DIE, url, *drafts], timeout=60, check=False).returncode == -9


def test_a_dead_process_is_seen_at_once_and_its_draft_is_kept(url: str, session: Session) -> None:
    die(url, "Once", "Once upon")
    assert session.chat("second", timeout=0).text == "reply to second"
    assert said(session) == [
        ("user", "first"),
        ("assistant", "Once upon…"),
        ("user", "second"),
        ("assistant", "reply to second"),
    ]


def test_a_dead_process_that_had_said_nothing_leaves_no_reply(url: str, session: Session) -> None:
    die(url)
    session.append("aside", timeout=0)
    assert said(session) == [("user", "first"), ("user", "aside")]


def test_a_dead_processs_turn_is_taken_up_under_its_key(url: str, session: Session) -> None:
    die(url, "Once upon")
    with session.turn("first", key="k", timeout=0) as turn:
        assert turn.id == 1
        assert turn.messages == [{"role": "user", "content": "first"}]  # what was cut is not shown to the model again
        turn.finish("A whole reply.")
    assert said(session) == [("user", "first"), ("assistant", "Once upon…"), ("assistant", "A whole reply.")]
    assert session.chat("first", key="k").text == "A whole reply."


@pytest.mark.parametrize("hours", [-5, 5])
def test_machines_whose_clocks_differ_agree_on_a_lease(any_url: str, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    with Memory(any_url, backend=ScriptedBackend(["fine", "fine"]), budget=Budget(4000)) as memory:
        session = memory.session("chat")
        with session.turn("first") as turn:
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr("threadkeep.stores.rows.time", lambda: time.time() + hours * 3600)
                with pytest.raises(Conflict), session.turn("second", timeout=0):
                    pass
                with pytest.raises(Conflict):
                    session.append("aside", timeout=0)
            turn.draft("Once")
            turn.finish("reply to first")
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("threadkeep.stores.rows.time", lambda: time.time() + hours * 3600)
            left = session.turn("third")
            left.__enter__()
        with pytest.raises(Conflict), session.turn("fourth", timeout=0):
            pass
        left.release()


SUSPEND = """
import os, signal, sys
from threadkeep import Budget, LeaseLost, Memory, TiktokenCounter

memory = Memory(sys.argv[1], counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500))
with memory.session("chat").turn("first") as turn:
    print("begun", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        turn.finish("too late")
    except LeaseLost as error:
        print(type(error).__name__, error, flush=True)
memory.close()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system suspends no process by a signal")
def test_a_process_that_was_suspended_past_its_lease_writes_nothing(any_url: str) -> None:
    with Memory(any_url, backend=ScriptedBackend(["fine"]), budget=Budget(4000)) as memory:
        session = memory.session("chat")
        with subprocess.Popen([sys.executable, "-c", SUSPEND, any_url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            with pytest.raises(Conflict), session.turn("second", timeout=0):
                pass
            expire(memory)
            assert session.chat("second", timeout=0).text == "fine"
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline().startswith("LeaseLost turn 1")
        assert process.returncode == 0
        assert [text for _, text in said(session)] == ["first", "second", "fine"]


# Fencing.


@pytest.mark.parametrize(
    "write",
    [
        lambda turn: turn.finish("too late"),
        lambda turn: turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])),
        lambda turn: turn.draft("too late"),
        lambda turn: turn.lease.renew(),
    ],
    ids=["finish", "append", "draft", "renew"],
)
def test_whoever_lost_the_lease_writes_nothing(
    memory: Memory, session: Session, monkeypatch: pytest.MonkeyPatch, write: Callable[[Turn], object]
) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    with session.turn("first") as turn:
        assert turn.request
        expire(memory)
        session.chat("second")
        before = said(session)
        with pytest.raises(LeaseLost, match="turn 1"):
            write(turn)
    assert said(session) == before
    assert len(session.calls()) == 1


def test_a_turn_of_a_deleted_session_writes_nothing(session: Session) -> None:
    with session.turn("first") as turn:
        session.delete()
        session.append("anew")
        with pytest.raises(LeaseLost):
            turn.finish("too late")
    assert said(session) == [("user", "anew")]


def test_an_ended_lease_that_nobody_took_is_still_good(memory: Memory, session: Session) -> None:
    with session.turn("first") as turn:
        expire(memory)
        turn.finish("late, but first")
    assert said(session)[-1] == ("assistant", "late, but first")


# The same key again.


def test_a_finished_turn_gives_its_reply_and_writes_nothing(session: Session) -> None:
    first = session.chat("Hello", key="k")
    with session.turn("Hello", key="k") as turn:
        assert turn.reply is not None
        assert turn.reply.message == first.message
        assert turn.reply.seq == first.seq
        assert turn.id == 1
        with pytest.raises(Conflict):
            turn.finish("another reply")
    assert [event.text for event in session.stream("Hello", key="k").__enter__()] == [first.text]
    assert len(session.entries()) == 2
    assert len(session.calls()) == 1


def test_a_finished_turn_gives_its_reply_while_another_is_held(session: Session) -> None:
    session.chat("Hello", key="k")
    with session.turn("second"):
        assert session.chat("Hello", key="k", timeout=0).text == "reply to Hello"


def test_an_unanswered_turn_is_taken_up_again(session: Session) -> None:
    with pytest.raises(ZeroDivisionError), session.turn("Hello", key="k") as turn:
        fail(turn.request)
    with session.turn("Hello", key="k") as again:
        assert again.reply is None
        assert again.user == session.entries()[0]
        assert again.messages == [{"role": "user", "content": "Hello"}]
        again.finish("Good morning.")
    assert said(session) == [("user", "Hello"), ("assistant", "Good morning.")]


def test_an_interrupted_turn_is_taken_up_again(session: Session) -> None:
    with session.stream("Hello", key="k") as stream:
        next(stream)
    assert session.chat("Hello", key="k").text == "reply to Hello"
    assert said(session) == [("user", "Hello"), ("assistant", "reply …"), ("assistant", "reply to Hello")]


def test_a_turn_that_the_conversation_left_behind_is_a_conflict(session: Session) -> None:
    with session.turn("Hello", key="k"):
        pass
    session.chat("Something else")
    before = said(session)
    with pytest.raises(Conflict, match="went on"):
        session.chat("Hello", key="k")
    assert said(session) == before


def test_a_key_with_another_message_is_refused(session: Session) -> None:
    session.chat("Hello", key="k")
    with session.turn("Hi", key="l"):
        pass
    for key in ("k", "l"):
        with pytest.raises(KeyReused), session.turn("Something else", key=key):
            pass
    assert len(session.entries()) == 3


def test_a_key_of_a_batch_begins_no_turn(session: Session) -> None:
    session.append("Hello", key="k")
    with pytest.raises(KeyReused), session.turn("Hello", key="k"):
        pass


def test_a_key_that_is_held_waits(session: Session) -> None:
    with session.turn("Hello", key="k"), pytest.raises(Conflict), session.turn("Hello", key="k", timeout=0):
        pass
