"""A strategy of your own is one method: this one keeps how the conversation began, and the newest that fits beside it."""

from dataclasses import dataclass

from threadkeep import Budget, History, Memory, Pick, ScriptedBackend


@dataclass(frozen=True)  # gives it a repr, by which explanations and records name it
class BeginningAndEnd:
    first: int = 2

    def pick(self, history: History, budget: Budget) -> list[Pick]:
        beginning = history.between(1, self.first)
        left = budget.room - sum(entry.shown_tokens for entry in beginning)
        return [Pick.of(beginning, "how it began"), Pick.of(history.tail(max(0, left)), "the newest")]


if __name__ == "__main__":
    scripted = ScriptedBackend(lambda context: f"I was shown {len(context.messages)} messages.")  # no model: the strategy is the point
    with Memory("sqlite://", backend=scripted, strategy=BeginningAndEnd(), budget=Budget(110, reply=20)) as memory:
        session = memory.session("support-42", owner="ada")
        for question in (
            "My order 4711 came broken.",
            "It was a lamp.",
            "The shade is cracked.",
            "I would like a new one.",
            "When will it come?",
        ):
            print(session.chat(question).text)
        print(session.context("And what was my order's number?").explain())
