"""A summariser of your own is a name and one method: this one keeps the first sentence of whatever a user said."""

from dataclasses import dataclass

from threadkeep import Budget, Memory, RollingSummary, ScriptedBackend, SummaryRequest


@dataclass(frozen=True)
class FirstSentences:
    name: str = "first-sentences"  # summaries of another name are never mixed with these

    def summarise(self, request: SummaryRequest) -> str:
        new = [one.text.split(".")[0] + "." for one in request.said if one.speaker == "user"]
        return " ".join(([request.before] if request.before else []) + new)


if __name__ == "__main__":
    scripted = ScriptedBackend(lambda context: f"I was shown {context.tokens} tokens.")  # no model: the summary is the point
    strategy = RollingSummary(FirstSentences(), span=60, tokens=60, recent=20)
    with Memory("sqlite://", backend=scripted, strategy=strategy, budget=Budget(160, reply=20), upkeep=False) as memory:
        session = memory.session("support-42", owner="ada")
        for order in ("My lamp broke. It is order 4711.", "The shade is cracked. It fell.", "The shop is in Bergen. It rained.", "When?"):
            session.chat(order + " And I have told this to your colleague on the telephone already, at some length.")
            session.upkeep()  # in the background, unless Memory is told upkeep=False
        print(session.context("What broke?").messages[0]["content"])
