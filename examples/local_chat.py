"""Talk with the bundled model, line by line; run it again, and the conversation goes on. A model's name may be given."""

import sys

from threadkeep import LlamaCpp, Memory

model = LlamaCpp(*sys.argv[1:2])

with Memory("sqlite:///local_chat.db", backend=model, instructions="Answer in a sentence or two.") as memory:
    session = memory.session("local")
    for line in sys.stdin:
        with session.stream(line.strip(), max_tokens=100) as stream:  # leaving early would store what was said
            for event in stream:
                print(event.text, end="", flush=True)
        print(f"\n[{stream.reply.usage}]")
model.close()
