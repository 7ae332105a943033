"""Two local models behind a router: the small one answers what is easy, the large one what is not. Their names may be given."""

import sys

from threadkeep import Candidate, LlamaCpp, Memory, Router

small, large = (LlamaCpp(name) for name in (sys.argv[1:3] or ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]))
router = Router([Candidate(small, tier=1), Candidate(large, tier=2)])  # a third might be an OpenAIBackend: it is asked when both fail

with Memory("sqlite://", backend=router, instructions="Answer in a sentence.") as memory:
    session = memory.session("two-models")
    for question in ("Good morning!", "Write a Python function that says whether a year is a leap year."):
        reply = session.chat(question, max_tokens=60)  # one conversation, whoever answers
        print(f"{question}\n  {reply.text}\n  [{reply.route}]")
    cost = sum(call.cost or 0 for call in session.calls())
    print(f"{cost:.2f} dollars")  # models on this machine cost nothing, unless you say what they do
router.close()
