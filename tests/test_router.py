"""A router: the cheapest candidate that can take a request, another where that one fails, and the log right through it."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from threadkeep import (
    AsyncMemory,
    BackendError,
    Budget,
    Candidate,
    CannotFit,
    Context,
    InvalidSetting,
    LlamaCpp,
    Memory,
    Message,
    MissingExtra,
    ModelUnavailable,
    NoCandidate,
    Price,
    Profile,
    Reply,
    Router,
    ScriptedBackend,
    Session,
    SlidingWindow,
    SpendCap,
    TiktokenCounter,
    ToolCall,
    Usage,
)
from threadkeep.backends.base import Backend, Event
from threadkeep.backends.estimating_counter import EstimatingCounter
from threadkeep.backends.prices import cost_of, price_for, price_of
from threadkeep.backends.scripted import Replies
from threadkeep.backends.tiers import tier_of
from threadkeep.memory.message import JSON
from threadkeep.memory.money import FREE
from threadkeep.memory.tokens import TokenCounter

TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}}
FORMAT = {"type": "json_object"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/hen.png", "detail": "low"}}
DEAR = Price(Decimal(2), Decimal("0.5"), Decimal(8))


def named(
    name: str, replies: Replies, *, price: Price | None = FREE, window: int = 8192, can: bool = True, counter: TokenCounter | None = None
) -> ScriptedBackend:
    """A model of that name; `can`: whether it takes tools, pictures and response formats."""
    profile = Profile(name=name, tools=can, images=can, structured_output=can)
    backend = ScriptedBackend(replies, window=window, profile=profile, counter=counter)
    backend.name, backend.price = name, price
    return backend


def says_its_name(name: str) -> Replies:
    return lambda context: f'{{"name": "{name}"}}'


def routed(url: str, *candidates: Backend, **more: object) -> Memory:
    return Memory(url, backend=Router(candidates), upkeep=False, **more)  # type: ignore[arg-type]


def logged(session: Session) -> list[tuple[str, str, str]]:
    return [(entry.role, entry.message.text, str(entry.status)) for entry in session.entries()]


def called(session: Session) -> list[tuple[str, str, str]]:
    return [(call.model, call.purpose, call.outcome) for call in session.calls()]


# 1,000 made requests over 4 candidates.


def candidates_of_all_kinds() -> list[Candidate]:
    """A free one that can little, in a small window; a cheap one with a dear answer; one that can all; one that is strong."""
    o200k = TiktokenCounter("o200k_base")
    return [
        Candidate(named("little", says_its_name("little"), window=400, can=False, counter=o200k)),
        Candidate(
            named(
                "chatty", says_its_name("chatty"), price=Price(Decimal("0.1"), None, Decimal(4)), window=800, counter=EstimatingCounter()
            ),
            tier=2,
            vision=False,
        ),
        Candidate(
            named("able", says_its_name("able"), price=Price(Decimal("0.4"), Decimal("0.1"), Decimal(2)), window=3000, counter=o200k),
            tier=2,
        ),
        Candidate(named("strong", says_its_name("strong"), price=DEAR, window=3000, counter=o200k), tier=3, tools=False),
    ]


REPLY = 150
"""Tokens kept for a reply that nobody says the length of."""


@pytest.mark.parametrize("part", range(20))
def test_of_1000_requests_each_goes_to_the_cheapest_that_can_take_it(url: str, part: int) -> None:
    """In 20 parts. The tier is drawn, so that the message does not decide; what fits a candidate, a memory of its own says."""
    rng, offered = random.Random(part), candidates_of_all_kinds()
    asked = 1
    budget = Budget(3000, reply=REPLY)
    answered = set()
    with Memory(url, backend=Router(offered, lambda request: asked), strategy=SlidingWindow(), budget=budget, upkeep=False) as memory:
        alone = {
            one: Memory(
                memory.store, backend=one, strategy=SlidingWindow(), budget=Budget(min(3000, one.window), reply=REPLY), upkeep=False
            )
            for one in offered
        }
        for number in range(50):
            asked = rng.randint(1, 4)
            session = memory.session(f"session {number % 7}")
            text = "word " * rng.choice((1, 20, 100, 300, 600, 1300, 3000))
            message: JSON = {"role": "user", "content": [{"type": "text", "text": text}, PICTURE] if rng.random() < 0.05 else text}
            tools = [TOOL] if rng.random() < 0.3 else None
            wanted = FORMAT if rng.random() < 0.2 else None
            most = rng.choice((None, 50, 300, 1000))

            fitting = []
            for one in offered:
                with suppress(CannotFit, InvalidSetting, NoCandidate):  # its window is smaller than the reply; it sees no pictures
                    alone[one].session(session.name).context(message, tools=tools, response_format=wanted, max_tokens=most)
                    fitting.append(one)
            newest = [message] if number < 7 else [*(entry.raw for entry in session.entries(limit=1000)[-7:]), message]
            needs = ["tools"] if tools else []
            needs += ["structured output"] if wanted else []
            needs += ["vision"] if any(isinstance(each["content"], list) for each in newest) else []
            able = [one for one in offered if all(one.can(need) for need in needs)]
            reaching = [one for one in able if one.tier >= min(asked, max(each.tier for each in able))] if able else []
            possible = [one for one in fitting if one in reaching]
            if not possible:
                with pytest.raises((CannotFit, NoCandidate)):
                    session.chat(message, tools=tools, response_format=wanted, max_tokens=most)
                continue
            reply = session.chat(message, tools=tools, response_format=wanted, max_tokens=most)
            so_far = session.entries(limit=1000)[-2].cum_tokens
            costs = {one: cost_of(one.price or FREE, Usage(so_far, most or REPLY)) for one in possible}
            cheapest = min(costs, key=lambda one: (costs[one], one.tier))
            assert reply.text == f'{{"name": "{cheapest.name}"}}'
            sent = cheapest.backend.seen[-1]  # type: ignore[attr-defined]  # a script's
            counted = cheapest.counter.count_request(sent.typed_messages(), tools=sent.tools, response_format=sent.response_format)
            assert counted.tokens == sent.tokens <= cheapest.window - (most or REPLY)
            answered.add(cheapest.name)
    assert len(answered) >= 3


# What a router is asked and what it says.


def test_the_cheaper_of_two_answers_and_says_why(url: str) -> None:
    with routed(
        url, named("dear", ["no"], price=DEAR), named("cheap", ["yes"], price=Price(Decimal("0.1"), None, Decimal("0.4")))
    ) as memory:
        reply = memory.session("chat").chat("Hello")
    assert reply.text == "yes"
    assert reply.route == "cheap: tier 1 (short question), $0.00041 estimated"


def test_a_plain_backend_has_no_route(url: str) -> None:
    with Memory(url, backend=named("alone", ["yes"])) as memory:
        assert memory.session("chat").chat("Hello").route is None


def test_of_two_free_ones_the_lower_tier_answers(url: str) -> None:
    with routed(url, Candidate(named("strong", ["no"]), tier=3), Candidate(named("weak", ["yes"]))) as memory:
        assert memory.session("chat").chat("Hello").text == "yes"


def test_without_a_price_a_candidate_comes_last(url: str) -> None:
    with routed(url, named("a model of nobody's", ["no"], price=None), named("dear", ["yes"], price=DEAR)) as memory:
        assert memory.session("chat").chat("Hello").text == "yes"


@pytest.mark.parametrize(
    ("text", "tier", "reason"),
    [
        ("What is my name?", 1, "short question"),
        ("We meet on 2026-03-12 at 10:30, my dear.", 1, "short question"),
        ("Select a dress from the shop for me.", 1, "short question"),
        ("What is 17 * 23?", 2, "mathematics"),
        ("Why does this fail?\n```python\nprint(x)\n```", 2, "code"),
        ("SELECT name FROM owners gives nothing", 2, "code"),
        ("word " * 200, 2, "long"),
        ("word " * 2000, 3, "very long"),
        ("Explain it step by step: calculate the square root.", 3, "reasoning"),
    ],
)
def test_the_default_policy_goes_by_stated_rules(text: str, tier: int, reason: str) -> None:
    assert tier_of({"messages": [{"role": "user", "content": text}]}) == (tier, reason)


def test_the_default_policy_sees_what_else_is_asked_for() -> None:
    parts = [{"type": "text", "text": "What is this?"}, PICTURE]
    request: JSON = {"messages": [{"role": "user", "content": parts}], "tools": [TOOL], "response_format": FORMAT}
    assert tier_of(request) == (2, "attachment, tools, structured output")
    assert tier_of({}) == (1, "short question")


def test_a_policy_of_ones_own_sees_the_request(url: str) -> None:
    seen: list[JSON] = []

    def policy(request: JSON) -> tuple[int, str]:
        seen.append(request)
        return 2, "a customer who pays"

    router = Router([Candidate(named("weak", ["no"])), Candidate(named("strong", ["yes"], price=DEAR), tier=2)], policy)
    with Memory(url, backend=router) as memory:
        reply = memory.session("chat").chat("Hello", tools=[TOOL], max_tokens=100)
    assert (reply.text, reply.route) == ("yes", "strong: tier 2 (a customer who pays), $0.00086 estimated")
    (request,) = seen
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert list(request["tools"]) == [TOOL]  # type: ignore[call-overload]
    assert request["max_tokens"] == 100


def test_a_tier_that_nobody_reaches_is_the_highest_there_is(url: str) -> None:
    with Memory(url, backend=Router([Candidate(named("weak", ["yes"]), tier=2)], lambda request: 9)) as memory:
        assert memory.session("chat").chat("Hello").route == "weak: tier 9, the highest there is: 2, free"


@pytest.mark.parametrize("given", [0, "2", (2,), (1, None), None, True])
def test_a_policy_gives_a_tier(url: str, given: object) -> None:
    router = Router([named("one", ["no"])], lambda request: given)  # type: ignore[arg-type,return-value]
    with Memory(url, backend=router) as memory, pytest.raises(InvalidSetting, match="policy gave"):
        memory.session("chat").chat("Hello")


def test_what_every_candidate_lacks_is_named(url: str) -> None:
    with routed(url, Candidate(named("first", []), tools=False), named("second", [], can=False)) as memory:
        with pytest.raises(NoCandidate, match="first has no tools; second has no tools and no structured output") as caught:
            memory.session("chat").chat("Hello", tools=[TOOL], response_format=FORMAT)
        assert caught.value.lacking == [("first", ["tools"]), ("second", ["tools", "structured output"])]


def test_a_picture_a_moment_ago_is_still_to_be_seen(url: str) -> None:
    sees, blind = named("sees", says_its_name("sees"), price=DEAR), named("blind", says_its_name("blind"), can=False)
    with routed(url, blind, sees) as memory:
        session = memory.session("chat")
        assert session.chat({"role": "user", "content": [{"type": "text", "text": "Look"}, PICTURE]}).text == '{"name": "sees"}'
        answers = [session.chat("And on the left?").text for _ in range(5)]
    assert answers == ['{"name": "sees"}'] * 3 + ['{"name": "blind"}'] * 2


def test_a_window_too_small_is_passed_over_and_the_largest_says_what_does_not_fit(url: str) -> None:
    with routed(url, named("small", ["no"], window=200), named("large", ["yes"], price=DEAR, window=2000)) as memory:
        session = memory.session("chat")
        reply = session.chat("word " * 300)
        assert reply.text == "yes"
        assert "; small passed over: what must be in the context takes at least 3" in str(reply.route)
        with pytest.raises(CannotFit) as caught:
            session.chat("word " * 3000)
        assert caught.value.room == 1500
        assert [role for role, _, _ in logged(session)] == ["user", "assistant", "user"]


@pytest.mark.parametrize("wrong", [[], "qwen", ["qwen"], None, ScriptedBackend([])])
def test_a_router_is_made_of_backends(wrong: Sequence[Backend]) -> None:
    with pytest.raises(InvalidSetting):
        Router(wrong)


def test_a_routers_candidates_are_no_routers_and_its_settings_are_checked() -> None:
    with pytest.raises(InvalidSetting, match="one list"):
        Router([Router([ScriptedBackend([])])])
    with pytest.raises(InvalidSetting, match="policy"):
        Router([ScriptedBackend([])], policy=2)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="tier"):
        Candidate(ScriptedBackend([]), tier=0)
    with pytest.raises(InvalidSetting, match="a Price"):
        Candidate(ScriptedBackend([]), price=Decimal(1))  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="a backend"):
        Candidate(Candidate(ScriptedBackend([])))


def test_a_local_model_is_not_loaded_to_be_left_out(url: str) -> None:
    local = Candidate(LlamaCpp("smollm2-135m", window=2048, threads=1), tier=1, tools=False, vision=False, schema=False)
    router = Router([Candidate(named("remote", ["yes"], price=DEAR), tier=2), local])
    with Memory(url, backend=router) as memory:  # the tests refuse to load a model
        assert memory.session("chat").chat("Is this right? Prove it.", tools=[TOOL]).text == "yes"


def test_a_context_that_is_only_looked_at_is_the_one_that_would_be_sent(url: str) -> None:
    small, large = named("small", ["no"], window=300), named("large", ["yes"], price=DEAR, window=3000, counter=EstimatingCounter())
    with routed(url, small, large) as memory:
        session = memory.session("chat")
        session.append(*(Message.user("word " * 40) for _ in range(20)))
        assert session.context("Hello").budget == Budget(300, reply=75)
        assert session.context("word " * 300).budget == Budget(3000, reply=750)
        supposed = session.context("word " * 300)
        with session.stream("word " * 300) as stream:
            assert (stream.context.messages, stream.context.tokens) == (supposed.messages, supposed.tokens)
        assert session.context().counter == large.counter.name


# A candidate that fails.


class Cut(ScriptedBackend):
    """Says two words and breaks."""

    def stream(self, context: Context) -> Iterator[Event]:
        yield Event()
        yield Event("one ")
        yield Event("two")
        raise BackendError("the line is dead")


class Silent(ScriptedBackend):
    """Ends without a word."""

    def stream(self, context: Context) -> Iterator[Event]:
        yield Event()


@pytest.mark.parametrize(
    "error", [BackendError("down"), ModelUnavailable("no file"), MissingExtra("xllamacpp", "local"), InvalidSetting("no")]
)
def test_one_that_fails_before_a_word_gives_way_to_the_next(url: str, error: Exception) -> None:
    broken, good = named("broken", [error, "well again"]), named("good", ["yes"], price=DEAR)
    with routed(url, broken, good) as memory:
        session = memory.session("chat")
        reply = session.chat("Hello", key="k")
        assert (reply.text, reply.status) == ("yes", "complete")
        assert str(reply.route).endswith(f"estimated; broken failed: {error}")
        assert logged(session) == [("user", "Hello", "complete"), ("assistant", "yes", "complete")]
        failed = [("broken", "reply", "failed")] if isinstance(error, BackendError) else []
        assert called(session) == [*failed, ("good", "reply", "complete")]
        assert session.chat("Hello", key="k").text == "yes"
        assert session.chat("Again").text == "well again"


def test_the_stored_record_is_that_of_the_context_that_was_answered(url: str) -> None:
    broken = named("broken", [BackendError("down")], window=300)
    good = named("good", ["yes"], price=DEAR, window=3000, counter=EstimatingCounter())
    with routed(url, broken, good, budget=Budget(2500, reply=100)) as memory:
        session = memory.session("chat")
        session.append(*(Message.user("word " * 40) for _ in range(20)))
        with session.stream("Hello") as stream:
            list(stream)
        (sent,) = good.seen
        assert stream.context == sent
        assert (sent.counter, sent.budget) == (good.counter.name, Budget(2500, reply=100))
        again = session.context(as_of=1)
        assert (again.messages, again.tokens, again.budget) == (sent.messages, sent.tokens, sent.budget)
        assert broken.seen[0].budget == Budget(300, reply=100)
        assert len(broken.seen[0].messages) < len(sent.messages)


def test_one_that_fails_in_the_middle_is_stored_as_cut_and_nobody_else_is_asked(url: str) -> None:
    cut, good = Cut([]), named("good", ["no"], price=DEAR)
    cut.name = "cut"
    with routed(url, cut, good) as memory:
        session = memory.session("chat")
        with pytest.raises(BackendError, match="the line is dead"):
            session.chat("Hello")
        assert logged(session) == [("user", "Hello", "complete"), ("assistant", "one two", "interrupted")]
        assert called(session) == [("cut", "reply", "interrupted")]
        assert (session.calls()[0].prompt_tokens, session.calls()[0].completion_tokens) == (8, 2)
        assert not good.seen


def test_one_that_ends_without_a_word_has_failed(url: str) -> None:
    with routed(url, Silent([]), named("good", ["yes"], price=DEAR)) as memory:
        assert str(memory.session("chat").chat("Hello").route).endswith("; scripted failed: scripted stopped without saying anything")


def test_when_all_fail_each_is_named_and_the_turn_can_be_tried_again(url: str) -> None:
    with routed(url, named("a", [BackendError("down"), "yes"]), named("b", [BackendError("over")], price=DEAR)) as memory:
        session = memory.session("chat")
        with pytest.raises(BackendError, match="each of 2 candidates failed: a: down; b: over"):
            session.chat("Hello", key="k")
        assert logged(session) == [("user", "Hello", "complete")]
        assert called(session) == [("a", "reply", "failed"), ("b", "reply", "failed")]
        assert session.chat("Hello", key="k").text == "yes"
        assert logged(session) == [("user", "Hello", "complete"), ("assistant", "yes", "complete")]


async def falls_over(url: str) -> tuple[Reply, list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    router = Router([named("broken", [BackendError("down")]), named("good", ["yes"], price=DEAR)])
    async with AsyncMemory(url, backend=router, upkeep=False) as memory:
        session = memory.session("chat")
        reply = await session.chat("Hello")
        log = [(entry.role, entry.message.text, str(entry.status)) for entry in await session.entries()]
        return reply, log, [(call.model, call.purpose, call.outcome) for call in await session.calls()]


def test_the_async_twin_falls_over_too(url: str) -> None:
    reply, log, calls = asyncio.run(falls_over(url))
    assert str(reply.route).endswith("; broken failed: down")
    assert log == [("user", "Hello", "complete"), ("assistant", "yes", "complete")]
    assert calls == [("broken", "reply", "failed"), ("good", "reply", "complete")]


def test_the_round_after_a_tool_may_go_to_another(url: str) -> None:
    def look() -> str:
        """Look."""
        return "a hen"

    calls = Message.assistant(None, tool_calls=[ToolCall("c1", "look", "{}")])
    with routed(url, named("first", [calls, BackendError("down")]), named("second", ["It is a hen."], price=DEAR)) as memory:
        session = memory.session("chat")
        reply = session.chat("What is it?", tools=[look])
        assert reply.text == "It is a hen."
        assert [role for role, _, _ in logged(session)] == ["user", "assistant", "tool", "assistant"]
        assert called(session) == [("first", "reply", "complete"), ("first", "reply", "failed"), ("second", "reply", "complete")]


class Absent(ScriptedBackend):
    """A model whose file is not here: all that must be read of it says so."""

    @property
    def profile(self) -> Profile:
        raise ModelUnavailable("no file of it is here")

    @profile.setter
    def profile(self, profile: Profile) -> None:
        """A scripted one sets it."""


@pytest.mark.parametrize("needs", [{}, {"tools": [TOOL]}, {"response_format": FORMAT}])
def test_one_whose_model_is_missing_gives_way_whatever_the_request_needs(url: str, needs: Any) -> None:
    good = named("good", says_its_name("good"), price=DEAR)
    absent = Candidate(Absent([]))
    with Memory(url, backend=Router([Candidate(good), absent]), upkeep=False) as memory:
        session = memory.session("chat")
        reply = session.chat("Hello", **needs)
        assert reply.text == '{"name": "good"}'
        assert str(reply.route).endswith("; scripted passed over: no file of it is here")
        context = session.context("Again", **needs)
    assert "".join(event.text for event in Router([absent, good]).stream(context)) == '{"name": "good"}'
    with pytest.raises(ModelUnavailable, match="no file of it"):
        list(Router([absent]).stream(context))


# Without a session.


def test_a_router_answers_what_was_assembled_without_a_session(url: str) -> None:
    with Memory(url, backend=named("any", [])) as memory:
        context = memory.session("chat").context("word " * 300)
    small, broken, good = named("small", [], window=200), named("broken", [BackendError("down")]), named("good", ["yes"], price=DEAR)
    router = Router([small, broken, good])
    assert "".join(event.text for event in router.stream(context)) == "yes"
    assert not small.seen
    with pytest.raises(CannotFit):
        list(Router([small]).stream(context))
    router.close()


# Prices.


def test_prices_are_published_ones_or_ones_own_and_exact() -> None:
    assert price_of("gpt-4.1-nano") == Price(Decimal("0.1"), Decimal("0.025"), Decimal("0.4"))
    assert price_of("gpt-4.1-nano", "https://api.openai.com/v1/") == price_of("gpt-4.1-nano")
    assert price_of("gpt-4.1-nano", "http://127.0.0.1:8080/v1") is None
    assert price_of("a model of nobody's") is None
    assert price_for(LlamaCpp("smollm2-135m")) == FREE
    assert cost_of(Price(Decimal("0.1"), Decimal("0.025"), Decimal("0.4")), Usage(1000, 100, 100)) == Decimal("0.0001325")
    assert cost_of(Price(Decimal("0.041666666666666664")), Usage(3, 0)) == Decimal("0.000000124999999999999992")


def test_a_long_prompt_costs_what_long_prompts_do() -> None:
    price = price_of("claude-sonnet-4-5")
    assert price is not None
    assert cost_of(price, Usage(200_000, 0)) == Decimal("0.6")
    assert cost_of(price, Usage(200_001, 0)) == Decimal("1.200006")


@pytest.mark.parametrize("wrong", [0.1, -1, "much", "NaN", None, True])
def test_a_price_is_an_exact_amount(wrong: object) -> None:
    with pytest.raises(InvalidSetting, match="exact"):
        Price(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"caps nothing|exact"):
        SpendCap(owner=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [((5, 3),), ((5,),), "x", ((-5, FREE),), ((5, FREE), (5, FREE)), ((True, FREE),)])
def test_what_a_long_prompt_costs_is_a_price_from_so_many_tokens_on(wrong: Any) -> None:
    with pytest.raises(InvalidSetting, match="pairs of prompt tokens and a Price, ascending"):
        Price(Decimal(1), over=wrong)


@pytest.mark.model
def test_a_real_model_answers_what_is_easy_within_its_window(url: str) -> None:
    local = LlamaCpp("smollm2-135m", window=512, temperature=0, parallel=1, threads=1)
    try:
        with routed(url, Candidate(local), Candidate(named("remote", ["yes"] * 2, price=DEAR), tier=2)) as memory:
            session = memory.session("chat")
            easy = session.chat("Hello", max_tokens=3)
            assert easy.route == "smollm2-135m: tier 1 (short question), free"
            assert session.chat("word " * 110, max_tokens=3).text != "yes"
            long = session.chat("word " * 600, max_tokens=3)  # over the window, and 601 words are long
            assert long.text == "yes"
            assert called(session) == [(name, "reply", "complete") for name in ("smollm2-135m", "smollm2-135m", "remote")]
            assert [call.cost == 0 for call in session.calls()] == [True, True, False]
            assert session.calls()[0].first_token_ms is not None
    finally:
        local.close()
