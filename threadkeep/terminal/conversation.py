"""The made-up conversation that the demo replays, and what it asks afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from threadkeep.memory.message import Message

INSTRUCTIONS = "You are the travel assistant of one traveller. Answer the last question in one short sentence, from what was said before."


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer somebody said once."""

    fact: str
    text: str
    answer: str
    """What a right reply contains, and of the conversation only the messages that say the fact."""


QUESTIONS = (
    Question("booking code", "What is the booking code of my hotel?", "HX4812"),
    Question("allergy", "Which food am I allergic to?", "sesame"),
    Question("train", "At what time does my train to Lisbon leave?", "9:39"),
    Question("cat", "What is the name of my cat?", "Biscuit"),
    Question("home", "In which city do I live?", "Ghent"),
)
"""Those of the last days first: what the window still shows, then what it has lost."""

_EXCHANGES = (
    (
        "2026-10-01 08:12",
        "Hi! I'm Ada Lindqvist, and I'm planning two weeks in Portugal for the end of the month. Can you help me with that?",
        "With pleasure, Ada. Tell me when you can leave, what you like and how you like to travel, and we plan it step by step.",
    ),
    (
        "2026-10-01 08:15",
        "I live in Ghent, so I would fly from Brussels. I like small towns, long walks and good food, and I don't want to drive.",
        "Then trains suit you: from Porto down to Lisbon all of that lies along one line, with walks along the coast between.",
    ),
    (
        "2026-10-01 08:19",
        "That sounds lovely. One thing: my cat Biscuit cannot stay alone for two weeks, so I must find somebody for him first.",
        "Let us settle that first. Is there somebody nearby who knows him, or should I look for people who come once a day?",
    ),
    (
        "2026-10-01 08:22",
        "My neighbour Jonas has a key. I'll ask him tonight, he took care of him in spring too.",
        "Good. I note it as open, and we plan the rest as if he says yes.",
    ),
    (
        "2026-10-03 19:40",
        "Jonas says yes! So I can leave on the 24th. What would two weeks look like?",
        "Five nights in Porto, three in Coimbra and four in Lisbon, with two days kept free for whatever you like best on the way.",
    ),
    (
        "2026-10-03 19:44",
        "Could we leave one of the free days for the Douro valley? I have wanted to see the vineyards for years.",
        "Yes: a slow train runs up the valley from Porto to Pinhão, two and a half hours along the river, and returns in the evening.",
    ),
    (
        "2026-10-06 12:02",
        "How warm is it there at the end of October? I never know what to pack.",
        "About 19 degrees by day and 12 at night, with a few days of rain. Take a warm pullover, a rain jacket and shoes that may get wet.",
    ),
    (
        "2026-10-06 12:05",
        "And do I need cash, or can I pay by card everywhere?",
        "Cards work nearly everywhere. Keep thirty euros in coins and small notes for markets, cafés and the old trams.",
    ),
    (
        "2026-10-09 21:15",
        "I found a flight to Porto at a good price, in the morning. Is it worth paying for a suitcase?",
        "For two weeks with a washing machine on the way, no: cabin luggage is enough, and you walk past the belt.",
    ),
    (
        "2026-10-09 21:19",
        "Then I leave the suitcase at home. How do I get from the airport into the city?",
        "By metro, the violet line: half an hour to Trindade, and the ticket is a card that you charge at the machine.",
    ),
    (
        "2026-10-11 10:20",
        "My mother asks whether it is safe to travel there alone. What do I tell her?",
        "That Portugal is among the safest countries there are. Mind your pockets in full trams, as everywhere.",
    ),
    (
        "2026-10-11 10:23",
        "That will calm her. Do I need a word of Portuguese?",
        "Bom dia, por favor and obrigada open every door; for the rest, many people speak English gladly.",
    ),
    (
        "2026-10-13 18:30",
        "What should I see in Porto when it rains all day?",
        "The Soares dos Reis museum, the tiles in São Bento station, a port cellar in Gaia, and a long lunch somewhere in Bonfim.",
    ),
    (
        "2026-10-13 18:34",
        "And for walks when it does not rain?",
        "Along the river to Foz and back by tram, or the wooden path over the dunes south of Gaia, eight kilometres with cafés on the way.",
    ),
    (
        "2026-10-16 09:03",
        "Is Coimbra worth three nights? A colleague said that one is enough.",
        "One is enough for the university. With three you also have the Roman ruins of Conímbriga and a day in the forest of Buçaco.",
    ),
    (
        "2026-10-16 09:07",
        "The forest decides it. How do I get to Buçaco without a car?",
        "By bus to Luso, forty minutes, and then on foot through the gate: an hour uphill under old cedars, and down again to the springs.",
    ),
    (
        "2026-10-19 20:11",
        "I booked the hotel in Lisbon now, for four nights. The booking code is HX4812, please keep it for me.",
        "Noted. Check-in there is from three in the afternoon; they keep luggage for you if you are early.",
    ),
    (
        "2026-10-19 20:14",
        "Is the part of the city around it quiet? I sleep lightly.",
        "Graça is quiet at night but for the first tram at six. Ask for a room to the courtyard, and you will not hear that either.",
    ),
    (
        "2026-10-20 17:26",
        "Something that I forgot: I'm allergic to sesame. Is that a problem in Portugal?",
        "Seldom in the traditional kitchen. Take care with bread and in modern places, and carry a note in Portuguese; I can write one.",
    ),
    (
        "2026-10-20 17:30",
        "Please do, that would help in restaurants.",
        "I will put it at the end of the plan, so that you can show it on your telephone.",
    ),
    (
        "2026-10-21 13:45",
        "How much should I tip in restaurants and cafés?",
        "Nothing is expected. Rounding up or leaving five to ten percent after a good meal is kind, in cafés some coins.",
    ),
    (
        "2026-10-22 19:02",
        "I now have the ticket from Coimbra to Lisbon as well: my train leaves at 9:39 on the second of November.",
        "A good choice: you are in Lisbon before noon and can leave your bag at the hotel at once.",
    ),
    (
        "2026-10-22 19:06",
        "Which side of the carriage has the better view?",
        "The left one, for the river in the last half hour; before that both sides show fields and cork oaks.",
    ),
    (
        "2026-10-23 20:48",
        "One more question for Lisbon: where can I hear fado without a hundred other tourists?",
        "In the small taverns of Graça and Mouraria, on weekdays: come at nine, order something small and stay for the second set.",
    ),
    (
        "2026-10-23 20:52",
        "Perfect. I think that was everything; I start packing now.",
        "Have a good journey. I am here while you travel, whatever comes up on the way.",
    ),
)


def said() -> Iterator[tuple[Message, datetime]]:
    """Every message with the time it was said, oldest first."""
    for when, question, answer in _EXCHANGES:
        at = datetime.fromisoformat(when).replace(tzinfo=UTC)
        yield Message.user(question), at
        yield Message.assistant(answer), at + timedelta(seconds=9)
