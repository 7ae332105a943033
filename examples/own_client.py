"""Your own client answers, and threadkeep keeps the thread: hold the turn, send its request, hand back what came.

The openai package reads OPENAI_API_KEY, and OPENAI_BASE_URL for any server that speaks its protocol. Run it again: the requests come
with the same keys, so they are answered from the database, and the provider is not asked.
"""

from openai import OpenAI

from threadkeep import Budget, Memory, TiktokenCounter

MODEL = "gpt-4.1-nano"
REQUESTS = {"request-1": "My name is Ada, and my order 4711 came broken.", "request-2": "Which order was it?"}

client = OpenAI()
memory = Memory(
    "sqlite:///own_client.db",
    budget=Budget(128_000, reply=500),
    counter=TiktokenCounter(MODEL),  # no local model is loaded
    instructions="You help the customers of a lamp shop.",
)

with memory:
    session = memory.session("support-42", owner="ada")
    for key, text in REQUESTS.items():
        with session.turn(text, key=key) as turn:  # an exception in here leaves the turn to be taken up again
            reply = turn.reply
            if reply is None:  # otherwise it was answered before
                completion = client.chat.completions.create(model=MODEL, **turn.request)
                reply = turn.finish(completion)  # stored with its usage
        print(f"{text}\n  {reply.text}")
