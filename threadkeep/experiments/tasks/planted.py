"""A conversation made from a seed: facts, updates of facts, small talk, near-duplicates and tool traffic, of any length.

No answer stands anywhere but in the message that is its evidence, so that what a strategy keeps is what it is measured on. All is drawn
through `Random.random()`, the one generator that Python promises to keep the same.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TypeAlias, TypeVar

from threadkeep import InvalidSetting, Message, ToolCall
from threadkeep.experiments.base import Conversation, Dataset, DatasetError, Question, Said

LEAST, MOST = 10_000, 10_000_000
"""Tokens: room for the facts themselves, and what a machine's memory holds."""
PER_TOKEN, PER_TOKEN_OF_JSON, PER_MESSAGE = 4.65, 3.05, 4
"""Characters a token of o200k_base, as measured on what is made here, and tokens that a message adds."""
FIRST_MORNING = datetime(2025, 1, 6, 9, tzinfo=UTC)

Item = TypeVar("Item")
Exchange: TypeAlias = "list[tuple[Message, Fact | None]]"
"""Messages in their order, each with the fact that it holds."""


class Dice:
    """Draws things and values. What was taken for a fact is never drawn again."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random
        self.taken: set[str] = set()

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def few(self, most: int) -> int:
        """From 0 to `most`, small numbers more often than large ones."""
        drawn = self.random()
        return int(drawn * drawn * (most + 1))

    def one(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        order = sorted((self.random(), at) for at in range(len(items)))
        return [items[at] for _, at in order]

    def unused(self, make: "Maker") -> str:
        """A value that no fact has."""
        while (value := make(self)) in self.taken:
            pass
        return value

    def take(self, make: "Maker") -> str:
        """A value for a fact."""
        value = self.unused(make)
        self.taken.add(value)
        return value


Maker: TypeAlias = Callable[[Dice], str]

# Values. None of a kind is part of another of the kind: names and numbers have one length each.


def a_name(dice: Dice) -> str:
    syllables = [dice.one("bdfgklmnprstvz") + dice.one("aeiou") for _ in range(3)]
    return ("".join(syllables) + dice.one("lmnrs")).capitalize()


def a_code(dice: Dice) -> str:
    return f"{dice.one('BCDFGHJKLM')}{dice.one('NPQRSTVWXZ')}-{dice.below(10_000):04}"


def a_price(dice: Dice) -> str:
    return f"{100 + dice.below(900)}.{dice.below(100):02} euros"


def a_moment(dice: Dice) -> str:
    return f"{dice.one(DAYS)} at {7 + dice.below(13):02}:{dice.below(60):02}"


def a_day(dice: Dice) -> str:
    return f"{dice.one(MONTHS)} the {dice.one(ORDINALS)} of {1950 + dice.below(100)}"


def a_street(dice: Dice) -> str:
    return f"{10 + dice.below(90)} {a_name(dice)} Street"


def a_thing(dice: Dice) -> str:
    return f"{dice.one(MATERIALS)} {dice.one(COLOURS)} {dice.one(THINGS)}"


def a_dish(dice: Dice) -> str:
    return f"{dice.one(COOKED)} {dice.one(FOODS)} {dice.one(DISHES)}"


DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth".split()
MATERIALS = "copper wooden velvet glass leather paper woollen silver bamboo marble rubber porcelain".split()
COLOURS = "crimson turquoise ochre violet emerald ivory scarlet indigo amber maroon teal lilac".split()
THINGS = "lantern teapot umbrella drum kite globe whistle lamp hammock compass vase mask flute basket mirror clock".split()
COOKED = "smoked pickled candied braised roasted fermented stewed grilled caramelised poached".split()
FOODS = "quince fennel mackerel chestnut parsnip lentil plum aubergine walnut beetroot sardine apricot rhubarb barley".split()
DISHES = "stew tart salad soup pie risotto curry dumplings".split()

KINDS: tuple[tuple[str, str, Maker], ...] = (
    ("{s} dog is called {v}", "What is {s} dog called?", a_name),
    ("{s} cat answers to the name of {v}", "Which name does {s} cat answer to?", a_name),
    ("{s} landlord is a certain {v}", "Who is {s} landlord?", a_name),
    ("{s} dentist is Doctor {v}", "Who is {s} dentist?", a_name),
    ("{s} boat carries the name {v}", "Which name does {s} boat carry?", a_name),
    ("{s} home town is {v}", "What is {s} home town?", a_name),
    ("{s} piano teacher is {v}", "Who is {s} piano teacher?", a_name),
    ("{s} first school stood in {v}", "Where did {s} first school stand?", a_name),
    ("{s} employer is a firm called {v}", "Which firm is {s} employer?", a_name),
    ("{s} gym goes by the name of {v}", "What is the name of {s} gym?", a_name),
    ("{s} address is {v}", "What is {s} address?", a_street),
    ("{s} new office is at {v}", "Where is {s} new office?", a_street),
    ("{s} locker opens with {v}", "What does {s} locker open with?", a_code),
    ("{s} library card has the number {v}", "What is the number of {s} library card?", a_code),
    ("{s} car has the number plate {v}", "What is the number plate of {s} car?", a_code),
    ("{s} parking space is {v}", "Which parking space is {s}?", a_code),
    ("{s} insurance policy is number {v}", "What is the number of {s} insurance policy?", a_code),
    ("{s} train ticket is booked under {v}", "Under what is {s} train ticket booked?", a_code),
    ("{s} allergy is to {v}, of all things", "What is {s} allergy to?", a_dish),
    ("{s} favourite dish is {v}", "What is {s} favourite dish?", a_dish),
    ("{s} order for the dinner is the {v}", "What is {s} order for the dinner?", a_dish),
    ("{s} wedding day is {v}", "When is {s} wedding day?", a_day),
    ("{s} contract ends on {v}", "When does {s} contract end?", a_day),
    ("{s} visa expires on {v}", "When does {s} visa expire?", a_day),
    ("{s} appointment at the doctor's is on {v}", "When is {s} appointment at the doctor's?", a_moment),
    ("{s} choir practice is on {v}", "When is {s} choir practice?", a_moment),
    ("{s} driving test is on {v}", "When is {s} driving test?", a_moment),
    ("{s} flight leaves on {v}", "When does {s} flight leave?", a_moment),
    ("{s} job interview is on {v}", "When is {s} job interview?", a_moment),
    ("{s} rent is {v} a month", "How much is {s} rent?", a_price),
    ("{s} phone bill came to {v}", "How much was {s} phone bill?", a_price),
    ("{s} bicycle cost {v}", "How much did {s} bicycle cost?", a_price),
    ("{s} budget for the kitchen is {v}", "What is {s} budget for the kitchen?", a_price),
    ("{s} lucky charm is a {v}", "What is {s} lucky charm?", a_thing),
    ("{s} birthday wish is a {v}", "What is {s} birthday wish?", a_thing),
    ("{s} spare key lies under the {v}", "What does {s} spare key lie under?", a_thing),
    ("{s} favourite painting shows a {v}", "What does {s} favourite painting show?", a_thing),
    ("{s} prize at the fair was a {v}", "What was {s} prize at the fair?", a_thing),
)
NEAR = ("my", "my sister's", "my brother's", "my mother's", "my daughter's", "my son's")
"""Whose facts are asked for."""
OTHERS = ("my neighbour's", "my boss's", "my cousin's", "my old roommate's", "my colleague's", "a friend's", "my aunt's", "the mayor's")
"""Whose facts are told too, and never asked for."""

TOOLS: tuple[tuple[str, str, Maker, str, Maker, str], ...] = (
    ("list_bookings", "hotel", a_name, "confirmation", a_code, "What is the confirmation number of the booking at the hotel {k}?"),
    ("search_orders", "item", a_thing, "order_number", a_code, "What is the order number of the {k}?"),
    ("find_contacts", "person", a_name, "extension", a_code, "What is the extension of {k}?"),
    ("check_stock", "product", a_thing, "shelf", a_code, "Which shelf is the {k} on?"),
    ("list_payments", "payee", a_name, "amount", a_price, "How much was paid to {k}?"),
    ("read_calendar", "visitor", a_name, "starts", a_moment, "When does the visit of {k} start?"),
)
"""A function, the key and the value of its records, and how one is asked for."""

LEADS = ("By the way, ", "Before I forget: ", "For later: ", "Just so you know, ", "Something to keep in mind: ", "I should tell you that ")
UPDATES = ("That has changed: ", "An update to what I said: ", "Forget what I told you before, ", "It is different now: ", "As of today, ")
HEARD = ("Good to know, I will keep it in mind.", "Noted.", "Thank you, I have that now.", "All right, I will remember it.", "Understood.")
TALK = (
    "I spent the {t} {a} {p}, and it was {m}.",
    "Last {t} we were {a} {p} again.",
    "Do you think {a} is worth the trouble when the weather is {m}?",
    "It felt {m} to be {p} after so long.",
    "Somebody {p} told me that {a} helps against bad moods.",
    "I have been {a} a lot lately, mostly {p}.",
    "The whole {t} was {m}, to be honest.",
    "What would you take along for the {t} {p}?",
    "There is nothing quite like {a} when the {t} is {m}.",
    "My plan for the next {t} is {a} {p}, if nothing comes between.",
)
ADVICE = (
    "You could begin with {a} and see how the {t} goes.",
    "Many people find {a} {m} at first, and better after one {t} or two.",
    "If you go {p}, take your time and keep the rest of the {t} free.",
    "It may help to write down what was {m} about it.",
    "Another {t} {p} sounds {m} to me.",
    "Try {a} for a short while, then rest, then go on.",
    "Being {p} early in the {t} is usually less crowded.",
    "I would leave {a} for a day that is not so {m}.",
    "Small steps are enough: {a} every {t} already makes a difference.",
    "Ask around {p}, since people there tend to know about {a}.",
)
ACTIVITIES = """reading,gardening,baking bread,mending clothes,swimming,walking,sorting photographs,playing chess,learning to juggle,
watching birds,painting fences,writing letters,practising scales,cleaning windows,cooking for guests,repairing radios,stretching,
listening to old records,drawing maps,picking mushrooms""".replace("\n", "").split(",")
PLACES = """in the garden,by the river,at the market,in the library,on the balcony,near the station,at the harbour,in the workshop,
behind the church,at the office,in the kitchen,on the hill,at the museum,in the park,under the bridge""".replace("\n", "").split(",")
MOODS = "calm dull bright tiring lovely odd quiet busy pleasant rainy cheerful slow restful surprising ordinary warm".split()
TIMES = "morning afternoon evening weekend holiday week night break".split()
STATES = "open closed pending confirmed archived delayed".split()


@dataclass
class Fact:
    """Something to be asked for; an updated one has several values, the last of which counts."""

    category: str
    asks: str
    values: tuple[str, ...]
    states: str = ""
    """How it is said; for one out of a tool's result, the record's key stands in its place."""
    tool: int | None = None
    """Which tool's result holds it."""
    position: int = -1
    """Where it was said last."""


class Planted:
    """Makes one conversation, and some 30 to 200 questions that are asked at its end.

    Args:
        tokens: the conversation's length, in about tokens of o200k_base.
        seed: makes another conversation of the same kind.

    Raises:
        InvalidSetting: an argument is out of its range.
    """

    name = "planted"
    about = "facts, updated facts and tool results in made-up talk of any length (made from a seed; reads no file)"

    def __init__(self, tokens: int = 20_000, seed: int = 0) -> None:
        if type(tokens) is not int or not LEAST <= tokens <= MOST:
            raise InvalidSetting(f"planted(tokens={tokens!r:.40}): a whole number from {LEAST} to {MOST}")
        if type(seed) is not int or seed < 0:
            raise InvalidSetting(f"planted(seed={seed!r:.40}): a whole number from 0")
        self.tokens = tokens
        self.seed = seed

    def load(self, path: Path | str | None) -> Dataset:
        if path is not None:
            raise DatasetError(path, "task planted", "reads no file: it is made from a seed")
        name = f"planted-{self.tokens}-{self.seed}"
        planting = _Planting(self.tokens, Dice(self.seed))
        said = tuple(planting.said())
        questions = [
            Question(f"{name}/{number}", name, fact.asks, len(said), (fact.position,), (fact.values[-1],), fact.category)
            for number, fact in enumerate(planting.facts)
        ]
        return Dataset({name: Conversation(name, said)}, questions)


class _Planting:
    """The facts, and the talk that they are told in."""

    def __init__(self, tokens: int, dice: Dice) -> None:
        self.tokens = tokens
        self.dice = dice
        self.calls = 0
        self.most_records = min(40, tokens // 2000)
        questions = min(200, 30 + tokens // 6000)
        told = [(subject, kind) for kind in KINDS for subject in NEAR]
        self.facts = [self._told(*one) for one in dice.shuffled(told)[: questions - questions // 4]]
        self.facts += [self._looked_up(number % len(TOOLS)) for number in range(questions // 4)]

    def _told(self, subject: str, kind: tuple[str, str, Maker]) -> Fact:
        states, asks, make = kind
        versions = self.dice.one((1, 1, 1, 1, 2, 2, 3))
        values = tuple(self.dice.take(make) for _ in range(versions))
        return Fact("updated fact" if versions > 1 else "fact", asks.replace("{s}", subject), values, states.replace("{s}", subject))

    def _looked_up(self, tool: int) -> Fact:
        _, _, make_key, _, make_value, asks = TOOLS[tool]
        key = self.dice.take(make_key)
        return Fact("fact from a tool result", asks.replace("{k}", key), (self.dice.take(make_value),), key, tool)

    def said(self) -> Iterator[Said]:
        """The conversation. Each fact learns its position on the way."""
        due = self._schedule()
        dice, spent, position, exchanges_left = self.dice, 0.0, 0, 0
        at, abandoned = FIRST_MORNING, False
        while spent < self.tokens or due:
            if not exchanges_left:
                at += timedelta(minutes=120 + dice.below(2400))
                exchanges_left = 3 + dice.below(13)
            exchanges_left -= 1
            if not abandoned and spent > 0.6 * self.tokens:
                abandoned, exchange = True, self._abandoned()
            elif due and due[-1][0] <= spent:
                _, fact, version = due.pop()
                exchange = self._plant(self.facts[fact], version)
            else:
                exchange = self._filler()
            for message, held in exchange:
                if held is not None:
                    held.position = position
                at += timedelta(seconds=5 + dice.below(90))
                spent += PER_MESSAGE + len(message.text) / (PER_TOKEN_OF_JSON if message.role == "tool" else PER_TOKEN)
                position += 1
                yield Said(message, at)

    def _schedule(self) -> list[tuple[float, int, int]]:
        """Where each value is told, in tokens from the start; the next one last."""
        due = []
        for number, fact in enumerate(self.facts):
            places = sorted(self.dice.random() for _ in fact.values)
            due += [(0.97 * self.tokens * place, number, version) for version, place in enumerate(places)]
        return sorted(due, reverse=True)

    def _plant(self, fact: Fact, version: int) -> Exchange:
        if fact.tool is not None:
            return self._tools(fact)
        lead = self.dice.one(UPDATES if version else LEADS)
        return self._telling(lead + fact.states.replace("{v}", fact.values[version]) + ".", fact)

    def _filler(self) -> Exchange:
        dice, drawn = self.dice, self.dice.random()
        if drawn < 0.06:
            return self._tools()
        if drawn < 0.26:
            states, _, make = dice.one(KINDS)
            return self._telling(dice.one(LEADS) + states.replace("{s}", dice.one(OTHERS)).replace("{v}", dice.unused(make)) + ".")
        return [
            (Message.user(self._sentences(TALK, 1 + dice.few(7))), None),
            (Message.assistant(self._sentences(ADVICE, 1 + dice.few(16))), None),
        ]

    def _telling(self, statement: str, fact: Fact | None = None) -> Exchange:
        """A statement amid talk, and a reply that does not repeat it."""
        dice = self.dice
        text = " ".join(filter(None, (self._sentences(TALK, dice.few(3)), statement, self._sentences(TALK, dice.few(3)))))
        reply = " ".join(filter(None, (dice.one(HEARD), self._sentences(ADVICE, dice.few(4)))))
        return [(Message.user(text), fact), (Message.assistant(reply), None)]

    def _tools(self, fact: Fact | None = None) -> Exchange:
        """Up to three tools asked at once; the first one's result holds the fact. Results come in any order."""
        dice = self.dice
        asked = dice.shuffled([tool for tool in range(len(TOOLS)) if fact is None or tool != fact.tool])[: 1 + dice.below(3)]
        if fact is not None and fact.tool is not None:
            asked[0] = fact.tool
        calls = [self._call(tool) for tool in asked]
        results = [self._result(tool, call, fact if tool == asked[0] else None) for tool, call in zip(asked, calls, strict=True)]
        found = f"I have the {'list' if len(asked) == 1 else 'lists'}. {self._sentences(ADVICE, dice.few(2))}".strip()
        return [*_request(asked, calls), *dice.shuffled(results), (Message.assistant(found), None)]

    def _abandoned(self) -> Exchange:
        """Two calls at once, of which one never had a result."""
        asked = self.dice.shuffled(range(len(TOOLS)))[:2]
        calls = [self._call(tool) for tool in asked]
        return [*_request(asked, calls), self._result(asked[0], calls[0], None)]

    def _call(self, tool: int) -> ToolCall:
        self.calls += 1
        arguments = {"state": self.dice.one(STATES), "limit": 10 + self.dice.below(90)}
        return ToolCall(f"call_{self.calls:06}", TOOLS[tool][0], json.dumps(arguments))

    def _result(self, tool: int, call: ToolCall, fact: Fact | None) -> tuple[Message, Fact | None]:
        dice, (_, key, make_key, value, make_value, _) = self.dice, TOOLS[tool]
        pairs = [(dice.unused(make_key), dice.unused(make_value)) for _ in range(3 + dice.few(self.most_records))]
        if fact is not None:
            pairs.insert(dice.below(len(pairs) + 1), (fact.states, fact.values[0]))
        records = [{key: one, value: other, "state": dice.one(STATES), "note": self._sentences(TALK, dice.few(1))} for one, other in pairs]
        return Message.tool(json.dumps({"count": len(records), "records": records}), tool_call_id=call.id), fact

    def _sentences(self, templates: Sequence[str], count: int) -> str:
        one = self.dice.one
        return " ".join(one(templates).format(a=one(ACTIVITIES), p=one(PLACES), m=one(MOODS), t=one(TIMES)) for _ in range(count))


def _request(asked: Sequence[int], calls: Sequence[ToolCall]) -> Exchange:
    """The user's wish and the calls that it leads to."""
    wanted = " and the ".join(TOOLS[tool][0].split("_")[1] for tool in asked)
    return [(Message.user(f"Please look into the {wanted} for me."), None), (Message.assistant(tool_calls=calls), None)]
