"""What one session was told, another of the same owner knows: recall over all sessions of an owner, and of nobody else."""

from threadkeep import Budget, Compose, Memory, Recall, ScriptedBackend, SlidingWindow

if __name__ == "__main__":
    scripted = ScriptedBackend(lambda context: str(context.messages[0]["content"]))  # says what it was shown first
    strategy = Compose(SlidingWindow(step=0.5), Recall(scope="owner"), shares=(0.3, 0.7))
    with Memory("sqlite://", backend=scripted, strategy=strategy, budget=Budget(400, reply=50)) as memory:
        memory.session("monday", owner="ada").append("The serial number of my lamp is XJ-4471.")
        memory.session("monday", owner="bob").append("The serial number of my lamp is QQ-9000.")
        (found, *_) = memory.session("monday", owner="ada").search("Which serial number?", scope="owner")
        print(f"found with a score of {found.score:.2f} in {found.session}: {found.entry.message.text}")
        print(memory.session("friday", owner="ada").chat("What is the serial number of my lamp?").text)
