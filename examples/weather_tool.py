"""A Python function as a tool: the model calls it, it runs inside the turn, and the model answers with what it gave.

A model's name may be given. Its template need not know tools.
"""

import sys
from typing import Literal

from threadkeep import LlamaCpp, Memory

CELSIUS = {"Oslo": -4.0, "Bergen": 6.5, "Palermo": 19.0}


def weather(city: Literal["Oslo", "Bergen", "Palermo"], unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, object]:
    """The weather in a city right now.

    Args:
        city: where.
        unit: how the temperature is given.
    """
    degrees = CELSIUS[city]  # an exception would go to the model, as the call's result
    return {"city": city, "temperature": degrees if unit == "celsius" else degrees * 1.8 + 32, "unit": unit, "sky": "clear"}


model = LlamaCpp(*sys.argv[1:2], temperature=0)

with Memory("sqlite://", backend=model, instructions="You answer questions about the weather in a sentence.") as memory:
    session = memory.session("weather")
    session.chat(
        "How warm is it in Bergen?",
        tools=[weather],  # what a model is told of it comes from its signature and docstring
        tool_choice="required",  # left out, the model decides whether to call
        max_tokens=80,
    )
    for entry in session.entries():  # the call and its result are in the log, like everything said
        called = ", ".join(f"{call.name}({call.arguments})" for call in entry.message.tool_calls)
        print(f"{entry.role}: {called or entry.message.text}")
model.close()
