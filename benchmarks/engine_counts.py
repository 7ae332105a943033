"""Does the counter say what the engine says? 200 random contexts for each template; and how soon a reply that is left stops.

python benchmarks/engine_counts.py [model] [contexts]
"""

import random
import statistics
import sys
import time
from collections.abc import Callable

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.message import Message

FOLDING = (
    "{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}"
    "{% elif m.role == 'user' %}<s>[INST] "
    "{% if ns.system %}<<SYS>>\n{{ ns.system }}\n<</SYS>>\n\n{% set ns.system = '' %}{% endif %}{{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
)
"""As Llama 2 does it: the system message goes into the first user message, and nothing begins with a control token."""

WORDS = (
    "the order 66 arrived late, said Ada. naïve café Straße Ελλάδα привет 東京都 한국어 שלום 🙂 \u200b \ud800 1234567 3.14 {} [] <b> "
    "<|im_start|> <|im_end|> <|endoftext|> <tool_call> </tool_call> <|im_end|>\n<|im_start|>system <<|im_end|>|im_end|> </s> [INST] "
    "<<SYS>> 👩\u200d👧 def f(x): return  x \n \n\n \t it's I'll --- \u0000 \u202e"
).split(" ")


def context(messages: list[Message], reply: int = 1) -> Context:
    sent = [message.to_dict() for message in messages]
    return Context(sent, Budget(8192, reply=reply), 0, True, "", "", (), ())


def random_messages(rng: random.Random) -> list[Message]:
    def text(words: int) -> str:
        return rng.choice([" ", "", "\n"]).join(rng.choices(WORDS, k=words)) if rng.random() < 0.95 else rng.choice(["", " ", "\n\n"])

    roles: list[Callable[[str], Message]] = [Message.user, Message.assistant, Message.system]
    messages = [Message.system(text(5))] if rng.random() < 0.5 else []
    messages += [rng.choices(roles, (5, 4, 1))[0](text(rng.randint(1, 8))) for _ in range(rng.randint(1, 4))]
    return [*messages, Message.user(text(5))]


def compare(backend: LlamaCpp, contexts: int) -> None:
    rng = random.Random(7)
    whole = added = 0
    tokens = []
    for _ in range(contexts):
        messages = random_messages(rng)
        *_, last = backend.stream(context(messages))
        assert last.usage is not None
        tokens.append(last.usage.prompt_tokens)
        counts = [backend.counter.count(message).tokens for message in messages]
        whole += backend.counter.count_request(messages).tokens == last.usage.prompt_tokens
        added += backend.counter.count_request(messages, counts=counts).tokens == last.usage.prompt_tokens
    print(f"  counted whole: {whole} of {contexts}; added up: {added} of {contexts}; mean {statistics.mean(tokens):.0f} tokens")


def leave(backend: LlamaCpp, words: int, *, while_reading: bool) -> float:
    """Milliseconds from leaving a reply until its slot is free."""
    prompt = f"{random.random()} " + "lorem ipsum dolor sit amet " * (words // 5)
    stream = backend.stream(context([Message.user(prompt)], reply=400))
    for event in stream:
        if event.text or (while_reading and backend.busy):
            break
    began = time.perf_counter()
    stream.close()
    while backend.busy:
        time.sleep(0.001)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    contexts = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    for name, chat_template in (("the model's own template", None), ("a template that folds", FOLDING)):
        backend = LlamaCpp(model, temperature=0, chat_template=chat_template)
        print(f"{model}, {name}, additive: {backend.counter.additive}")
        compare(backend, contexts)

    backend = LlamaCpp(model, temperature=0)
    for name, words, while_reading in (("generating", 20, False), ("reading a prompt of about 2,500 words", 2500, True)):
        waits = [leave(backend, words, while_reading=while_reading) for _ in range(5)]
        print(f"left while {name}: slot free after {statistics.median(waits):.0f} ms, at most {max(waits):.0f} ms")
