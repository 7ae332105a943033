"""Are a local model's calls and JSON always valid, does it choose the right function, and are requests with tools counted exactly?

    python benchmarks/tool_requests/run.py qwen2.5-coder-0.5b --only required auto

Four parts, over the lists in this folder:
- required: 100 requests over the 20 functions of tools.json, a call demanded: the function alone, or named beside another
- auto: the 50 sentences of choices.json, each with 3 to 6 functions of which one is right; the model may also answer in words
- schema: 100 texts over the 20 JSON schemas of schemas.json
- counts: 200 made-up logs with calls and results: does the context's count equal the engine's `prompt_tokens`? (asked in the others, too)

Each answer is kept in a file as it comes: a run that was stopped goes on, and what is valid is judged anew from what was said. Delete the
file to ask again. The jsonschema package judges arguments and JSON, dates too. It takes an hour with 1.5B parameters on two cores.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from threadkeep import Budget, Context, LlamaCpp, Memory, Message, ToolCall
from threadkeep.memory.errors import ThreadkeepError

HERE = Path(__file__).parent
INSTRUCTIONS = "You help a customer. Today is Thursday, 12 February 2026."
MOST_TOKENS = 320
"""Nearly twice what the longest good answer takes; what is not whole by then counts as invalid."""
COUNTED = 200
WORDS = (
    'the order 66 arrived late, said Ada. naïve Straße 東京都 🙂 1234567 3.14 {} [] <b> \\ " \n <|im_start|> <|im_end|> <tool_call> '
    "</tool_call> <tool_response> </s> [INST] x=1; it's --- \t"
).split(" ")


@dataclass(frozen=True)
class Case:
    """One request: what is said, what is offered, and what a good answer is."""

    part: str
    number: int
    said: str
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    log: tuple[Message, ...] = ()
    right: str | None = None
    """The function to call."""
    most_tokens: int = MOST_TOKENS


def required() -> Iterator[Case]:
    listed = _read("tools.json")
    for at, one in enumerate(listed):
        alone = at % 2 == 0
        offered = [one] if alone else [listed[at - 1], one]
        choice = "required" if alone else {"type": "function", "function": {"name": one["name"]}}
        for number, said in enumerate(one["requests"]):
            tools = tuple(map(_function, offered))
            yield Case("required", 5 * at + number, said, tools, choice, right=one["name"])


def auto() -> Iterator[Case]:
    listed = _read("choices.json")
    functions = {one["name"]: _function(one) for one in listed["functions"]}
    number = 0
    for case in listed["cases"]:
        for said, right in case["asked"]:
            yield Case("auto", number, said, tuple(functions[name] for name in case["offered"]), "auto", right=right)
            number += 1


def schema() -> Iterator[Case]:
    for at, one in enumerate(_read("schemas.json")):
        asked = {"type": "json_schema", "json_schema": {"name": one["name"], "schema": one["schema"], "strict": True}}
        for number, text in enumerate(one["texts"]):
            yield Case("schema", 5 * at + number, f"{one['asked']}\n\n{text}", response_format=asked)


def counts() -> Iterator[Case]:
    functions = [_function(one) for one in (*_read("tools.json"), *_read("choices.json")["functions"])]
    for number in range(COUNTED):
        tools = random.Random(number // 10).sample(functions, 1 + number // 10 % 2)  # ten in a row alike: the engine reads them once
        draw = random.Random(number)
        log = tuple(message for _ in range(draw.randint(1, 2)) for message in _made_turn(draw, tools))
        choice = draw.choice([None, "auto", "none"])
        yield Case("counts", number, _text(draw, 6), tuple(tools), choice, log=log, most_tokens=1)


PARTS = {part.__name__: part for part in (required, auto, schema, counts)}


def _made_turn(draw: random.Random, tools: Sequence[dict[str, Any]]) -> Iterator[Message]:
    """A user's message, one to three calls, their results, and an answer; one turn in five was broken off before a result came."""
    yield Message.user(_text(draw, 6))
    calls = [_made_call(draw, draw.choice(tools)["function"]["name"]) for _ in range(draw.choice([1, 1, 2, 3]))]
    yield Message.assistant(draw.choice(["", _text(draw, 4)]), tool_calls=calls)
    came = calls[: draw.randrange(len(calls))] if draw.random() < 0.2 else calls
    yield from (Message.tool(draw.choice([_text(draw, 6), json.dumps(_made_value(draw, 2))]), tool_call_id=call.id) for call in came)
    if draw.random() < 0.8:
        yield Message.assistant(_text(draw, 6))


def _made_call(draw: random.Random, name: str) -> ToolCall:
    arguments = {draw.choice(["place", "count", "größe"]): _made_value(draw, 2) for _ in range(draw.randint(0, 2))}
    return ToolCall(f"call_{draw.randrange(10**6)}", name, json.dumps(arguments, ensure_ascii=draw.random() < 0.5))


def _made_value(draw: random.Random, depth: int) -> object:
    if depth and draw.random() < 0.4:
        inner = [_made_value(draw, depth - 1) for _ in range(draw.randint(0, 2))]
        return inner if draw.random() < 0.5 else {f"key {at}": value for at, value in enumerate(inner)}
    return draw.choice([_text(draw, 2), draw.randrange(-5000, 5000), draw.random() * 100, True, None])


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, words)))


def _function(one: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {key: one[key] for key in ("name", "description", "parameters")}}


def _read(name: str) -> Any:
    return json.loads((HERE / name).read_text())


# ---- asking ----


def ask(memory: Memory, model: LlamaCpp, case: Case) -> dict[str, Any]:
    """What came of a case, as one line of the file."""
    session = memory.session(f"{case.part} {case.number}")
    if case.log:
        session.append(*case.log)
    began = time.perf_counter()
    context: Context | None = None
    said: dict[str, Any] = {"part": case.part, "number": case.number, "text": "", "calls": []}
    try:
        context = session.context(
            case.said,
            tools=case.tools or None,
            tool_choice=case.tool_choice,
            response_format=case.response_format,
            max_tokens=case.most_tokens,
        )
        for event in model.stream(context):
            said["text"] += event.text
            said["calls"] += [[call.name, call.arguments] for call in event.tool_calls]
            if event.usage is not None:
                said |= {"read": event.usage.prompt_tokens, "cached": event.usage.cached_tokens, "written": event.usage.completion_tokens}
            if event.finish is not None:
                said["finish"] = event.finish
    except ThreadkeepError as error:
        said["error"] = f"{type(error).__name__}: {error}"
    counted = None if context is None else context.tokens
    return said | {"counted": counted, "ms": round((time.perf_counter() - began) * 1000)}


def run(model: LlamaCpp, cases: Sequence[Case], file: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """All answers, those of earlier runs included."""
    lines = file.read_text().splitlines() if file.exists() else []
    known = {(line["part"], line["number"]): line for line in map(json.loads, lines)}
    memory = Memory("sqlite://", backend=model, budget=Budget(model.window, reply=MOST_TOKENS), instructions=INSTRUCTIONS, upkeep=False)
    with memory, file.open("a") as kept:
        for case in cases:
            if (case.part, case.number) not in known:
                known[case.part, case.number] = line = ask(memory, model, case)
                kept.write(json.dumps(line) + "\n")
                kept.flush()
    return known


# ---- judging ----


def invalid(case: Case, said: dict[str, Any]) -> str | None:
    """Why the answer is no valid one; None: it is. Words in place of a call are valid where they are allowed."""
    if (error := said.get("error")) is not None:
        return str(error)
    if case.response_format is not None:
        return _against(case.response_format["json_schema"]["schema"], said["text"])
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
    for name, arguments in said["calls"]:
        if name not in schemas:
            return f"calls {name!r}, which was not offered"
        if (why := _against(schemas[name], arguments)) is not None:
            return why
    if case.part == "required" and {name for name, _ in said["calls"]} != {case.right}:
        return f"calls {said['calls']!r:.80}, not {case.right}"
    return None


def _against(shape: dict[str, Any], text: str) -> str | None:
    try:
        Draft202012Validator(shape, format_checker=FormatChecker(["date"])).validate(json.loads(text))
    except ValidationError as error:
        return f"{error.json_path}: {error.message:.100}"
    except ValueError as error:
        return f"no JSON: {error}"
    return None


def show(part: str, cases: Sequence[Case], said: dict[tuple[str, int], dict[str, Any]]) -> None:
    """A line or two of figures, and what was wrong."""
    answered = [(case, said[part, case.number]) for case in cases]
    faults = [(case, why) for case, line in answered if (why := invalid(case, line)) is not None]
    counted = [(case, line) for case, line in answered if "read" in line]
    unequal = [(case, line) for case, line in counted if line["counted"] != line["read"]]
    times = [line["ms"] for _, line in answered]
    read = statistics.mean(line["read"] for _, line in counted) if counted else 0
    written = statistics.mean(line["written"] for _, line in counted) if counted else 0
    print(
        f"{part}: {len(cases) - len(faults)} of {len(cases)} valid; counted exactly {len(counted) - len(unequal)} of {len(cases)}; "
        f"{statistics.mean(times):,.0f} ms each (median {statistics.median(times):,.0f}), {read:.0f} tokens read, {written:.0f} written"
    )
    if part == "auto":
        wrong = [(case, line) for case, line in answered if {name for name, _ in line["calls"]} != {case.right}]
        words = sum(not line["calls"] for _, line in wrong)
        print(f"  the right function: {len(cases) - len(wrong)} of {len(cases)}; in words instead: {words}")
        for case, line in wrong:
            print(f"  {case.number}: {case.said!r} wants {case.right}: {line['calls'] or line['text']!r:.160}")
    for case, why in faults:
        print(f"  {case.number}: {case.said!r:.60}: {why}")
    for case, line in unequal:
        print(f"  {case.number}: counted {line['counted']}, the engine read {line['read']}")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("model", help="a registered model's name, or a GGUF file")
    given.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    given.add_argument("--threads", type=int, help="1 is the fastest where others use the cores too")
    given.add_argument("--answers", type=Path, help="the file of answers; made where it is missing")
    chosen = given.parse_args()
    path = chosen.answers or Path(tempfile.gettempdir()) / f"threadkeep-tool-requests-{Path(chosen.model).stem}.jsonl"
    with closing(LlamaCpp(chosen.model, window=4096, parallel=1, threads=chosen.threads, temperature=0)) as model:
        for part in chosen.only:
            cases = list(PARTS[part]())
            show(part, cases, run(model, cases, path))
    print(f"answers: {path}")


if __name__ == "__main__":
    main()
