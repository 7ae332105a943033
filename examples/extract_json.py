"""Data out of a text: the reply is what a pydantic model describes, always, and comes as an object of it. A model's name may be given."""

import sys
from typing import Literal

from pydantic import BaseModel, Field

from threadkeep import LlamaCpp, Memory


class Item(BaseModel):
    name: str = Field(max_length=30)  # small models ramble: bounds keep them short
    count: int = Field(ge=1, le=99)


class Order(BaseModel):
    number: int = Field(ge=1, le=99_999)
    items: list[Item] = Field(min_length=1, max_length=3)
    payment: Literal["card", "cash", "invoice"]


model = LlamaCpp(*sys.argv[1:2], temperature=0)

with Memory("sqlite://", backend=model, instructions="You extract orders from mails.") as memory:
    session = memory.session("orders", owner="ada")
    reply = session.chat(
        "Hello, about my order 4711: I would like two lamps and a bulb, and I will pay by card. Yours, Bo",
        response_format=Order,
        max_tokens=200,  # too few would raise Truncated, and never give half of an order
    )
order = reply.parsed
assert isinstance(order, Order)
print(f"order {order.number}, paid by {order.payment}")
for item in order.items:
    print(f"{item.count} x {item.name}")
model.close()
