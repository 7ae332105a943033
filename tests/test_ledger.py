"""The ledger: every model call with what it took and cost, sums that are exact, and caps that hold before a call."""

import asyncio
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy import event as engine_events

from threadkeep import (
    AsyncMemory,
    BackendError,
    BackendSummariser,
    Budget,
    Candidate,
    Context,
    InvalidSetting,
    Memory,
    Message,
    NotFound,
    Price,
    RollingSummary,
    Router,
    ScriptedBackend,
    SpendCap,
    SpendCapReached,
    TiktokenCounter,
    Usage,
)
from threadkeep.backends.base import Event
from threadkeep.embedders.hashed import HashedEmbedder

ODD = Price(Decimal("0.041666666666666664"), Decimal("0.003625"), Decimal("0.18000000000000002"))
"""With as many digits as published prices have."""
DEAR = Price(Decimal(2), Decimal("0.5"), Decimal(8))


def priced(reply: str = "yes", price: Price | None = DEAR, name: str = "remote") -> ScriptedBackend:
    backend = ScriptedBackend(lambda context: reply)
    backend.name, backend.price = name, price
    return backend


def opened(url: str, backend: ScriptedBackend | Router | None = None, **more: object) -> Memory:
    return Memory(url, backend=backend or priced(), budget=Budget(4000, reply=500), upkeep=False, **more)  # type: ignore[arg-type]


def spent_by(memory: Memory, owner: str, name: str) -> tuple[Decimal, Decimal]:
    row = memory.store.session(owner, name)
    assert row is not None
    return memory.store.spent(row)


# Lines and sums.


def test_the_sums_are_those_of_the_calls_to_the_last_digit(url: str) -> None:
    rng = random.Random(7)
    with opened(url) as memory:
        for number in range(60):
            session = memory.session(f"s{number % 4}", owner=f"o{number % 2}")
            with session.turn(f"question {number}") as turn:
                cost = Decimal(rng.randrange(10**9)).scaleb(-rng.randint(6, 22)) if rng.random() < 0.9 else None
                turn.end(
                    Message.assistant("yes"), "complete", Usage(rng.randrange(5000), 3, cost=cost), "stop", rng.choice(("a", "b", "c"))
                )
        for owner, names in (("o0", ("s0", "s2")), ("o1", ("s1", "s3"))):
            of_owner = Decimal(0)
            for name in names:
                calls = memory.session(name, owner=owner).calls()
                total = sum((call.cost or Decimal(0) for call in calls), Decimal(0))
                used = memory.usage(owner=owner, session=name)
                assert sum(one.cost for one in used) == total == spent_by(memory, owner, name)[0]
                assert sum(one.calls for one in used) == len(calls) == 15
                assert sum(one.prompt_tokens for one in used) == sum(call.prompt_tokens for call in calls)
                assert sum(one.unpriced for one in used) == sum(call.cost is None for call in calls)
                of_owner += total
            assert sum(one.cost for one in memory.usage(owner=owner)) == of_owner == spent_by(memory, owner, names[0])[1]
            assert [one.cost for one in memory.usage(owner=owner)] == sorted((one.cost for one in memory.usage(owner=owner)), reverse=True)


def test_a_reply_says_what_it_cost(url: str) -> None:
    with opened(url, priced(price=ODD)) as memory:
        session = memory.session("chat")
        usage = session.chat("Hello").usage
        (call,) = session.calls()
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (8, 1)
    assert call.cost == usage.cost == (8 * ODD.input + ODD.output) / 1_000_000
    assert (call.purpose, call.model, call.outcome, call.turn_id) == ("reply", "remote", "complete", 1)
    assert call.total_ms is not None


def test_an_owner_that_nobody_knows_has_used_nothing(url: str) -> None:
    with opened(url) as memory:
        assert memory.usage(owner="nobody") == []
        with pytest.raises(NotFound):
            memory.usage(session="none")


def test_one_owner_sees_nothing_of_another(url: str) -> None:
    with opened(url) as memory:
        memory.session("chat", owner="ada").chat("Hello")
        memory.session("chat", owner="ben")
        assert memory.usage(owner="ben") == []
        with pytest.raises(NotFound):
            memory.usage(owner="ben", session="chat")


def test_what_was_spent_outlives_a_deleted_session_and_nothing_outlives_its_owner(url: str) -> None:
    with opened(url) as memory:
        for name in ("one", "two"):
            memory.session(name).chat("Hello")
        row = memory.store.session("default", "two")
        assert row is not None
        memory.session("one").delete()
        of_session, of_owner = memory.store.spent(row)
        assert of_owner == 2 * of_session > 0
        assert sum(one.cost for one in memory.usage()) == of_session
        memory.delete_owner("default")
        assert memory.store.spent(row) == (Decimal(0), Decimal(0))


# Cut and failed calls.


class Reading(ScriptedBackend):
    """Reads for ever, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__([])
        self.name, self.price = "remote", DEAR
        self._error = error

    def stream(self, context: Context) -> Iterator[Event]:
        yield Event()
        if self._error is not None:
            raise self._error
        while True:
            yield Event()


def test_a_reply_that_was_cut_costs_what_it_is_estimated_at(url: str) -> None:
    with opened(url, priced("one two three four")) as memory:
        session = memory.session("chat")
        with session.stream("Hello") as stream:
            next(stream)
            next(stream)
        (call,) = session.calls()
        assert (call.outcome, call.prompt_tokens, call.completion_tokens) == ("interrupted", 8, 3)
        assert call.cost == stream.reply.usage.cost == Decimal("0.000040")  # type: ignore[union-attr]


def test_a_call_that_was_left_before_a_word_costs_its_prompt(url: str) -> None:
    with opened(url, Reading()) as memory:
        session = memory.session("chat")
        with session.stream("Hello") as stream:
            next(stream)
        (call,) = session.calls()
        assert (call.turn_id, call.outcome, call.completion_tokens, call.cost) == (1, "interrupted", 0, Decimal("0.000016"))
        assert [entry.role for entry in session.entries()] == ["user"]


def test_of_a_call_that_failed_nobody_knows_what_it_cost(url: str) -> None:
    with opened(url, Reading(BackendError("down"))) as memory:
        session = memory.session("chat")
        with pytest.raises(BackendError, match="down"):
            session.chat("Hello")
        (call,) = session.calls()
        assert (call.outcome, call.prompt_tokens, call.cost) == ("failed", 0, None)
        assert memory.usage()[0].unpriced == 1


def test_a_session_that_was_deleted_meanwhile_gets_no_line(url: str) -> None:
    with opened(url, Reading()) as memory:
        session = memory.session("chat")
        with session.stream("Hello") as stream:
            next(stream)
            session.delete()
        assert memory.usage() == []


# Summaries and vectors.


def test_summaries_are_in_the_ledger_and_the_cap_holds_for_them(url: str) -> None:
    notes = priced("- a fact", name="small")
    strategy = RollingSummary(BackendSummariser(notes), span=120, tokens=60, recent=100)
    budget = Budget(600, reply=50)
    backend = priced(price=Price(Decimal(0)), name="free")
    with Memory(url, backend=backend, strategy=strategy, budget=budget, upkeep=False) as memory:
        session = memory.session("chat")
        for number in range(12):
            session.chat(f"Fact {number}: " + "word " * 60)
        assert not [done.error for done in session.upkeep() if done.error]
        made = [call for call in session.calls() if call.purpose == "summary"]
        assert made
        assert all((call.turn_id, call.model, call.outcome) == (None, "small", "complete") for call in made)
        assert all(call.cost and call.prompt_tokens > 60 for call in made)
        spent = sum((call.cost or Decimal(0) for call in session.calls()), Decimal(0))
    with Memory(url, backend=backend, strategy=strategy, budget=budget, upkeep=False, spend_cap=SpendCap(session=spent)) as memory:
        session = memory.session("chat")
        for number in range(12):
            session.chat(f"Fact {number}: " + "word " * 60)
        asked = len(notes.seen)
        assert any("spend cap" in str(done.error) for done in session.upkeep())
        assert len(notes.seen) == asked


def test_vectors_are_in_the_ledger(url: str) -> None:
    with Memory(url, backend=priced(), embedder=HashedEmbedder(), budget=Budget(4000, reply=500), upkeep=False) as memory:
        session = memory.session("chat")
        session.chat("Where is the hen?")
        session.upkeep()
        calls = [(call.turn_id, call.purpose, call.model, call.cost) for call in session.calls()]
        live, reply, late = session.calls()
        assert [call[:2] for call in calls] == [(1, "embedding"), (1, "reply"), (None, "embedding")]
        assert (live.model, live.cost, live.completion_tokens) == ("hashed-words-256", Decimal(0), 0)
        entries = session.entries()
        assert (live.prompt_tokens, late.prompt_tokens) == (entries[0].tokens, entries[1].tokens)
        assert reply.cost


# A client of one's own.


def test_a_completion_of_ones_own_client_is_priced_by_its_models_name(url: str) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 100}}
    completion = {"choices": [{"message": {"role": "assistant", "content": "yes"}}], "model": "gpt-4.1-nano-2025-04-14", "usage": usage}
    with Memory(url, counter=TiktokenCounter("gpt-4.1-nano"), budget=Budget(4000, reply=500)) as memory:
        session = memory.session("chat")
        with session.turn("Hello") as turn:
            turn.finish(completion)
        with session.turn("Again") as turn:
            turn.finish("yes", usage=Usage(5, 5, cost=Decimal("0.25")))
        with session.turn("Again") as turn:
            turn.finish(completion | {"model": "a model of nobody's"})
        assert [call.cost for call in session.calls()] == [Decimal("0.0001325"), Decimal("0.25"), None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost": 0.5},
        {"cost": Decimal("NaN")},
        {"cost": Decimal(-1)},
        {"cost": "a dollar"},
        {"prompt_tokens": -5},
        {"completion_tokens": None},
        {"cached_tokens": 1.5},
        {"total_ms": float("nan")},
        {"first_token_ms": "5"},
    ],
)
def test_a_usage_that_no_ledger_can_add_up_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=rf"Usage\({next(iter(wrong))}="):
        Usage(**{"prompt_tokens": 1, "completion_tokens": 1, **wrong})


def test_what_is_no_usage_is_refused_and_numbers_that_are_none_of_a_completion_are_not_believed(url: str) -> None:
    bent = {"prompt_tokens": -3, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": "5"}}
    with Memory(url, counter=TiktokenCounter("gpt-4.1-nano"), budget=Budget(4000, reply=500)) as memory:
        session = memory.session("chat")
        with pytest.raises(InvalidSetting, match="a Usage, or None"), session.turn("Hello", key="k") as turn:
            turn.finish("yes", usage=bent)  # type: ignore[arg-type]
        with session.turn("Hello", key="k") as turn:
            turn.finish({"role": "assistant", "content": "yes", "usage": bent}, usage=Usage(1, 1, cost="0.5"))  # type: ignore[arg-type]
        with session.turn("Again") as turn:
            turn.finish({"choices": [{"message": {"role": "assistant", "content": "yes"}}], "usage": bent})
        assert [(call.prompt_tokens, call.completion_tokens, call.cost) for call in session.calls()] == [
            (1, 1, Decimal("0.5")),
            (0, 0, None),
        ]


def test_a_cap_holds_for_ones_own_client_once_it_is_reached(url: str) -> None:
    cap = SpendCap(session=Decimal("0.25"))
    with Memory(url, counter=TiktokenCounter("gpt-4.1-nano"), budget=Budget(4000, reply=500), spend_cap=cap) as memory:
        session = memory.session("chat")
        with session.turn("Hello") as turn:
            assert turn.request["messages"]
            turn.finish("yes", usage=Usage(5, 5, cost=Decimal("0.25")))
        with session.turn("Again") as turn, pytest.raises(SpendCapReached):
            _ = turn.request
        assert memory.session("other").context("Hello").tokens


# Caps.


def test_a_cap_refuses_the_call_that_could_go_over_it_and_the_turn_can_be_taken_up_again(url: str) -> None:
    backend = priced()
    with opened(url, backend, spend_cap=SpendCap(session=Decimal("0.0041"))) as memory:
        session = memory.session("chat")
        session.chat("Hello")  # 8 tokens and at most 500: $0.004016; it took $0.000024
        session.chat("Hello")
        with pytest.raises(SpendCapReached, match="the session's spend cap is") as caught:
            session.chat("word " * 100, key="k")
        assert caught.value.whose == "session"
        assert caught.value.spent + caught.value.estimate > caught.value.cap == Decimal("0.0041")
        assert len(backend.seen) == 2
        assert [entry.role for entry in session.entries()][-1] == "user"
        assert session.chat("word", max_tokens=20).text == "yes"
        with pytest.raises(SpendCapReached):
            session.chat("word " * 100, key="l")
    with opened(url, backend, spend_cap=SpendCap(session=Decimal("0.01"))) as memory:
        session = memory.session("chat")
        assert session.chat("word " * 100, key="l").text == "yes"
        assert [entry.role for entry in session.entries()][-2:] == ["user", "assistant"]


def test_an_owners_cap_counts_all_sessions_and_no_other_owner(url: str) -> None:
    with opened(url, spend_cap=SpendCap(owner=Decimal("0.00405"))) as memory:
        memory.session("one", owner="ada").chat("Hello")
        memory.session("two", owner="ada").chat("Hello")
        with pytest.raises(SpendCapReached) as caught:
            memory.session("three", owner="ada").chat("Hello")
        assert (caught.value.whose, caught.value.spent) == ("owner", Decimal("0.000048"))
        assert memory.session("one", owner="ben").chat("Hello").text == "yes"


def test_a_free_model_answers_on_when_the_cap_is_reached(url: str) -> None:
    router = Router([Candidate(priced("dear one"), tier=2), Candidate(priced("free one", Price(Decimal(0)), "local"), tier=1)], lambda _: 1)
    with opened(url, router, spend_cap=SpendCap(owner=Decimal(0))) as memory:
        session = memory.session("chat")
        assert session.chat("Hello").text == "free one"
    dear_first = Router([priced("dear one", name="a"), priced("dearer", name="b")])
    with opened(url, dear_first, spend_cap=SpendCap(owner=Decimal(0))) as memory, pytest.raises(SpendCapReached):
        memory.session("chat").chat("Hello")


def test_under_a_cap_a_price_must_be_known(url: str) -> None:
    unknown = priced(price=None, name="a model of nobody's")
    with opened(url, unknown, spend_cap=SpendCap(owner=Decimal(1))) as memory, pytest.raises(InvalidSetting, match="price of a model of"):
        memory.session("chat").chat("Hello")
    with opened(url, Router([unknown, priced()]), spend_cap=SpendCap(owner=Decimal(1))) as memory:
        assert str(memory.session("chat").chat("Hello").route).startswith("remote: ")


async def capped(url: str) -> None:
    async with AsyncMemory(url, backend=priced(), budget=Budget(4000, reply=500), spend_cap=SpendCap(owner=Decimal("0.00403"))) as memory:
        session = memory.session("chat")
        await session.chat("Hello")
        with pytest.raises(SpendCapReached):
            await session.chat("Hello")
        (used,) = await memory.usage()
        assert (used.calls, used.cost) == (1, Decimal("0.000024"))


def test_the_async_twin_holds_a_cap_too(url: str) -> None:
    asyncio.run(capped(url))


def test_without_a_cap_nothing_more_is_read(url: str) -> None:
    with opened(url, priced(price=Price(Decimal(0)))) as memory:
        session = memory.session("chat")
        session.chat("Hello")
        statements: list[str] = []
        engine_events.listen(memory.store.engine, "before_cursor_execute", lambda conn, cursor, statement, *_: statements.append(statement))
        session.chat("Again")
    assert not [one for one in statements if "spent" in one and not one.startswith(("INSERT", "SELECT threadkeep_sessions.owner_id"))]


@pytest.mark.parametrize("wrong", [Decimal(1), "0.50", 5])
def test_a_cap_is_a_spend_cap(url: str, wrong: object) -> None:
    with pytest.raises(InvalidSetting, match="SpendCap"):
        Memory(url, spend_cap=wrong)  # type: ignore[arg-type]


def test_a_cap_that_caps_nothing_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="caps nothing"):
        SpendCap()


def test_calls_of_version_0002_stand_as_they_were_without_a_cost(url: str) -> None:
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", "threadkeep.stores:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for statement in (
            "INSERT INTO threadkeep_owners (id, name, created_us) VALUES (1, 'ada', 1)",
            (
                "INSERT INTO threadkeep_sessions (owner_id, id, name, active_branch, tokenizer, clip, revision, created_us, updated_us) "
                "VALUES (1, 2, 'chat', 3, 'any', 512, 0, 1, 1)"
            ),
            (
                "INSERT INTO threadkeep_branches (owner_id, id, session_id, name, lineage, head_seq, head_tokens, head_shown, head_group, "
                "head_turn, leading, open_calls, analyser, created_us) VALUES (1, 3, 2, 'main', '[]', 0, 0, 0, 0, 0, 0, '[]', 1, 1)"
            ),
            (
                "INSERT INTO threadkeep_calls (owner_id, id, session_id, turn_id, purpose, model, prompt_tokens, cached_tokens, "
                "completion_tokens, created_us) VALUES (1, 4, 2, 1, 'reply', 'old', 9, 0, 2, 1)"
            ),
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    with opened(url) as memory:
        session = memory.session("chat", owner="ada")
        (call,) = session.calls()
        assert (call.model, call.outcome, call.cost) == ("old", "complete", None)
        assert spent_by(memory, "ada", "chat") == (Decimal(0), Decimal(0))
        session.chat("Hello")
        assert [one.unpriced for one in memory.usage(owner="ada")] == [0, 1]
        assert spent_by(memory, "ada", "chat") == (Decimal("0.000024"), Decimal("0.000024"))
