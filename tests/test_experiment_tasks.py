"""What the tasks read: published formats in tiny files made here, oddities counted, and broken files named."""

import copy
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from threadkeep.experiments.base import Dataset, DatasetError, Question, Task
from threadkeep.experiments.tasks import TASKS, BFCLMemory, LoCoMo, LongMemEval, RealMem

# Tiny datasets in the published formats.

LONGMEMEVAL: list[dict[str, object]] = [
    {
        "question_id": "q1",
        "question_type": "knowledge-update",
        "question": "How many hens do I have?",
        "question_date": "2023/06/01 (Thu) 10:00",
        "answer": 4,
        "answer_session_ids": ["answer_a_2"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/04/30 (Sun) 13:59"],
        "haystack_session_ids": ["answer_a_2", "chat_7"],
        "haystack_sessions": [
            [{"role": "user", "content": "Now four hens.", "has_answer": True}, {"role": "assistant", "content": "Nice."}],
            [{"role": "user", "content": "  Hello\n", "has_answer": False}, {"role": "assistant", "content": ""}],
        ],
    },
    {
        "question_id": "q2_abs",
        "question_type": "multi-session",
        "question": "And geese?",
        "question_date": "2023/01/01 (Sun) 10:00",
        "answer": "You did not say.",
        "answer_session_ids": [],
        "haystack_dates": ["2023/04/30 (Sun) 13:59"],
        "haystack_session_ids": ["chat_7"],
        "haystack_sessions": [[{"role": "user", "content": "Hello"}]],
    },
]
LOCOMO: list[dict[str, object]] = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_10_date_time": "12:09 am on 13 September, 2023",
            "session_10": [{"speaker": "Bob", "dia_id": "D10:1", "text": "Late."}],
            "session_2_date_time": "1:56 pm on 8 May, 2023",
            "session_2": [
                {"speaker": "Ann", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a photo of a goat", "img_url": ["x"]},
                {"speaker": "Bob", "dia_id": "D2:2", "text": "A goat."},
            ],
            "session_11_date_time": "1:00 pm on 1 October, 2023",
        },
        "qa": [
            {"question": "What did they see?", "answer": "a goat", "evidence": ["D2:2; D10:1", "D2:1"], "category": 1},
            {"question": "How many?", "answer": 1, "evidence": ["D:10:1", "D99:1", "D"], "category": 2},
            {"question": "Who sang?", "adversarial_answer": "Ann", "evidence": [], "category": 5},
        ],
    }
]
REALMEM: dict[str, object] = {
    "_metadata": {"person_name": "Ann", "total_sessions": 3},
    "dialogues": [
        {
            "session_identifier": "A:1",
            "session_uuid": "u1",
            "current_time": "2025-12-22 (Monday)",
            "dialogue_turns": [
                {"speaker": "User", "is_query": False, "content": "I run.", "query_id": None},
                {"speaker": "Assistant", "is_query": False, "content": "Try 5 km.", "query_id": None},
            ],
            "extracted_memory": [
                {"content": "Plan: 5 km", "source_turn": 2, "session_uuid": "u1"},
                {"content": "Runs", "source_turn": 0, "session_uuid": "u1"},
            ],
        },
        {
            "session_identifier": "A:2",
            "session_uuid": "u2",
            "current_time": "2025-12-21 (Sunday)",
            "dialogue_turns": [
                {"speaker": "User", "is_query": True, "content": "What next?", "query_id": "Q-1", "category_name": "Dynamic"},
                {
                    "speaker": "Assistant",
                    "is_query": False,
                    "content": "After 5 km, 6.",
                    "query_id": None,
                    "memory_used": [
                        {"session_uuid": "u1", "content": "Plan: 5 km"},
                        {"session_uuid": "u1", "content": "Runs"},
                        {"session_uuid": "u9", "content": "Unknown"},
                        {"session_uuid": "u2", "content": "Then 6"},
                    ],
                },
                {"speaker": "User", "is_query": True, "content": "And then?", "query_id": "Q-2"},
            ],
            "extracted_memory": [{"content": "Then 6", "source_turn": 2, "session_uuid": "u2"}],
        },
    ],
}
BFCL_SESSIONS: list[dict[str, object]] = [
    {
        "id": "memory_prereq_0-customer-0",
        "scenario": "customer",
        "topic": "First",
        "question": [[{"role": "user", "content": "I'm 35, live in Oslo, and paid 17%."}], [{"role": "user", "content": "Bye."}]],
    },
    {
        "id": "memory_prereq_1-customer-1",
        "scenario": "customer",
        "question": [[{"role": "user", "content": "Friday: call Eve — at noon."}]],
    },
]
BFCL_ANSWERS: list[dict[str, object]] = [
    {"id": "memory_0-customer-0", "ground_truth": ["35", "thirty five"], "source": "I’m 35, live in Oslo..."},
    {"id": "memory_1-customer-1", "ground_truth": ["Eve"], "source": "Friday: Eve, whom I call at twelve"},
    {"id": "memory_2-customer-2", "ground_truth": ["zebra"], "source": "A zebra..."},
]
BFCL_QUESTIONS: list[dict[str, object]] = [
    {"id": f"memory_{n}-customer-{n}", "question": [[{"role": "user", "content": f"Question {n}?"}]], "scenario": "customer"}
    for n in range(3)
]


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, values: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def split_longmemeval(folder: Path) -> Path:
    """The same questions as `questions.json` and `sessions.jsonl.gz`."""
    questions = copy.deepcopy(LONGMEMEVAL)
    sessions: dict[str, object] = {}
    for question, evidence in zip(questions, ([[0, 0]], []), strict=True):
        question["evidence_turns"] = evidence
        turns = question.pop("haystack_sessions")
        ids = question["haystack_session_ids"] = [f"{question['question_id']}_{at}" for at in range(len(turns))]  # type: ignore[arg-type]
        sessions |= dict(zip(ids, turns, strict=True))  # type: ignore[call-overload]
    write_json(folder / "questions.json", questions)
    write_lines(folder / "sessions.jsonl.gz", [{"session_id": name, "turns": turns} for name, turns in sessions.items()])
    return folder


def bfcl(folder: Path) -> Path:
    write_lines(folder / "BFCL_v4_memory.json", BFCL_QUESTIONS)
    write_lines(folder / "possible_answer/BFCL_v4_memory.json", BFCL_ANSWERS)
    write_lines(folder / "memory_prereq_conversation/memory_customer.json", BFCL_SESSIONS)
    return folder


def texts(data: Dataset, name: str) -> list[str]:
    return [one.message.text for one in data.conversations[name].said]


def by_name(data: Dataset) -> dict[str, Question]:
    return {question.name: question for question in data.questions}


def assert_sound(data: Dataset) -> None:
    """What every task promises: evidence lies before the question, times go forward, names are unique."""
    for question in data.questions:
        said = data.conversations[question.conversation].said
        assert all(0 <= position < question.after <= len(said) for position in question.gold)
        assert list(question.gold) == sorted(set(question.gold))
        assert question.text
    for conversation in data.conversations.values():
        times = [one.at for one in conversation.said if one.at is not None]
        assert len(times) == len(conversation.said)
        assert all(before < after for before, after in pairwise(times))
    assert len(by_name(data)) == len(data.questions)


def test_tasks_are_named_by_themselves_and_say_what_they_are() -> None:
    assert list(TASKS) == ["longmemeval", "locomo", "realmem", "bfcl_memory", "planted", "sessions"]
    assert all(task.name == name and task.about and "\n" not in task.about for name, task in TASKS.items())


# LongMemEval.


def test_longmemeval_has_a_history_a_question_by_date_with_roles_and_words_as_they_are(tmp_path: Path) -> None:
    data = LongMemEval().load(write_json(tmp_path / "s.json", LONGMEMEVAL))
    assert_sound(data)
    assert texts(data, "q1") == ["  Hello\n", "", "Now four hens.", "Nice."]
    assert [one.message.role for one in data.conversations["q1"].said] == ["user", "assistant"] * 2
    assert data.conversations["q1"].said[2].at == datetime(2023, 5, 20, 2, 21, tzinfo=UTC)
    assert by_name(data)["q1"] == Question("q1", "q1", "How many hens do I have?", 4, (2,), ("4",), "knowledge-update")


def test_longmemevals_questions_without_an_answer_are_kept_without_gold(tmp_path: Path) -> None:
    data = LongMemEval().load(write_json(tmp_path / "s.json", LONGMEMEVAL))
    asked = by_name(data)["q2_abs"]
    assert (asked.gold, asked.answers, asked.category) == ((), (), "multi-session, abstention")
    assert any("does not answer" in note and note.endswith(": 1") for note in data.notes)
    assert any("dated before their last session" in note for note in data.notes)


def test_longmemevals_split_format_reads_the_same(tmp_path: Path) -> None:
    published = LongMemEval().load(write_json(tmp_path / "s.json", LONGMEMEVAL))
    split = LongMemEval().load(split_longmemeval(tmp_path / "split"))
    assert split == published


def test_no_id_of_a_longmemeval_session_reaches_a_conversation(tmp_path: Path) -> None:
    data = LongMemEval().load(write_json(tmp_path / "s.json", LONGMEMEVAL))
    assert "answer_" not in repr([data.conversations, [question.text for question in data.questions]])


@pytest.mark.parametrize("pair", [[2, 0], [0, 2], [-1, 0], [0], [0, "x"]])
def test_longmemeval_evidence_out_of_range_names_the_question(tmp_path: Path, pair: list[object]) -> None:
    folder = split_longmemeval(tmp_path)
    questions = json.loads((folder / "questions.json").read_text())
    questions[0]["evidence_turns"] = [pair]
    write_json(folder / "questions.json", questions)
    with pytest.raises(DatasetError, match=r"questions\.json, record 0 \(q1\)\.evidence_turns\[0\]"):
        LongMemEval().load(folder)


def test_a_longmemeval_session_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = split_longmemeval(tmp_path)
    write_lines(folder / "sessions.jsonl.gz", [{"session_id": "q1_0", "turns": [{"role": "user", "content": "x"}]}])
    with pytest.raises(DatasetError, match="names session 'q1_1'"):
        LongMemEval().load(folder)


# LoCoMo.


def test_locomos_speakers_are_named_and_pictures_described(tmp_path: Path) -> None:
    data = LoCoMo().load(write_json(tmp_path / "locomo10.json", LOCOMO))
    assert_sound(data)
    assert texts(data, "conv-1") == ["Ann: Look! [shares a picture: a photo of a goat]", "Bob: A goat.", "Bob: Late."]
    said = data.conversations["conv-1"].said
    assert [one.message.role for one in said] == ["user", "assistant", "assistant"]
    assert said[0].at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert said[2].at == datetime(2023, 9, 13, 0, 9, tzinfo=UTC)


def test_locomos_odd_evidence_is_read_where_it_can_be_and_counted(tmp_path: Path) -> None:
    data = LoCoMo().load(write_json(tmp_path / "locomo10.json", LOCOMO))
    several, broken, adversarial = data.questions
    assert (several.gold, several.answers, several.category) == ((0, 1, 2), ("a goat",), "multi-hop")
    assert (broken.gold, broken.answers, broken.category) == ((2,), ("1",), "temporal")
    assert (adversarial.gold, adversarial.answers, adversarial.category) == ((), (), "adversarial")
    assert list(data.notes) == [
        "evidence strings that hold several ids, each of which counts: 1",
        "evidence strings that hold no id, left out: 1",
        "evidence ids of turns that are not there, left out: 1",
        "questions without evidence: 1",
        "adversarial questions, which have no right answer, kept with their evidence alone: 1",
    ]


@pytest.mark.parametrize("date", ["1:56 pm on 31 February, 2023", "13 May 2023", "1:56 pm on 8 Mai, 2023"])
def test_a_locomo_date_that_is_none_is_named(tmp_path: Path, date: str) -> None:
    wrong = copy.deepcopy(LOCOMO)
    wrong[0]["conversation"]["session_2_date_time"] = date  # type: ignore[index]
    with pytest.raises(DatasetError, match=r"record 0 \(conv-1\)\.conversation\.session_2_date_time: is a date such as"):
        LoCoMo().load(write_json(tmp_path / "locomo10.json", wrong))


# RealMem.


def test_realmems_questions_stand_inside_the_dialogue(tmp_path: Path) -> None:
    write_json(tmp_path / "Ann_dialogues_256k.json", REALMEM)
    data = RealMem().load(tmp_path)
    assert_sound(data)
    assert data == RealMem().load(tmp_path / "Ann_dialogues_256k.json")
    assert texts(data, "Ann") == ["I run.", "Try 5 km.", "What next?", "After 5 km, 6.", "And then?"]
    first, second = data.questions
    assert first == Question("Ann/Q-1", "Ann", "What next?", 2, (1,), (), "Dynamic")
    assert (second.after, second.gold) == (4, ())


def test_what_realmem_does_not_resolve_is_counted(tmp_path: Path) -> None:
    write_json(tmp_path / "Ann_dialogues_256k.json", REALMEM)
    assert list(RealMem().load(tmp_path).notes) == [
        "memories in use that no earlier session holds, left out: 1",
        "memories in use that name no turn (source_turn below 1), left out: 1",
        "memories in use from turns said after the question, left out: 1",
        "questions without evidence: 1",
        "sessions dated no later than the one ahead of them in the file, taken to follow it: 1",
    ]


def test_a_realmem_source_turn_beyond_its_session_is_named(tmp_path: Path) -> None:
    broken = copy.deepcopy(REALMEM)
    broken["dialogues"][0]["extracted_memory"][0]["source_turn"] = 3  # type: ignore[index]
    with pytest.raises(DatasetError, match=r"dialogues\[0\] \(u1\)\.extracted_memory\[0\]\.source_turn: is 3, and the session has 2 turns"):
        RealMem().load(write_json(tmp_path / "a.json", broken))


def test_a_folder_without_realmems_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \*_dialogues_256k\.json"):
        RealMem().load(tmp_path)


def test_a_persona_in_two_files_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}_dialogues_256k.json", REALMEM)
    with pytest.raises(DatasetError, match=r"b_dialogues_256k\.json, the file: persona 'Ann' is in another file too"):
        RealMem().load(tmp_path)


# BFCL.


def test_bfcls_sessions_of_a_scenario_are_one_conversation(tmp_path: Path) -> None:
    data = BFCLMemory().load(bfcl(tmp_path))
    assert_sound(data)
    assert texts(data, "customer") == ["I'm 35, live in Oslo, and paid 17%.", "Bye.", "Friday: call Eve — at noon."]
    assert data.conversations["customer"].said[2].at == datetime(2025, 1, 2, 9, tzinfo=UTC)


def test_bfcls_quotes_are_found_in_their_turns(tmp_path: Path) -> None:
    data = BFCLMemory().load(bfcl(tmp_path))
    quoted, reworded, nowhere = data.questions
    assert (quoted.text, quoted.gold, quoted.answers, quoted.category) == ("Question 0?", (0,), ("35", "thirty five"), "customer")
    assert reworded.gold == (2,)
    assert nowhere.gold == ()
    assert [note.rsplit(": ", 1)[1] for note in data.notes] == ["1", "1", "1"]


def test_bfcl_answers_alone_are_no_dataset(tmp_path: Path) -> None:
    folder = bfcl(tmp_path)
    write_lines(folder / "BFCL_v4_memory.json", BFCL_ANSWERS)
    (folder / "possible_answer/BFCL_v4_memory.json").unlink()
    with pytest.raises(DatasetError, match="memory_0-customer-0: has no 'question'"):
        BFCLMemory().load(folder)


def test_a_bfcl_question_without_sessions_is_named(tmp_path: Path) -> None:
    folder = bfcl(tmp_path)
    for file in ("BFCL_v4_memory.json", "possible_answer/BFCL_v4_memory.json"):
        (folder / file).write_text((folder / file).read_text().replace("memory_1-customer-1", "memory_1-baker-1"))
    with pytest.raises(DatasetError, match=r"line 2 \(memory_1-baker-1\)\.ground_truth: .*a scenario that has sessions"):
        BFCLMemory().load(folder)


def test_a_bfcl_folder_names_what_it_lacks(tmp_path: Path) -> None:
    write_lines(tmp_path / "memory_prereq_conversation/memory_customer.json", BFCL_SESSIONS)
    with pytest.raises(DatasetError, match=r"holds no BFCL_v4_memory\.json"):
        BFCLMemory().load(tmp_path)
    (tmp_path / "memory_prereq_conversation/memory_customer.json").unlink()
    with pytest.raises(DatasetError, match="memory_prereq_conversation, the folder: holds no sessions"):
        BFCLMemory().load(tmp_path)


# Broken files.

FILES: dict[str, tuple[Task, str]] = {
    "longmemeval": (LongMemEval(), "s.json"),
    "longmemeval split": (LongMemEval(), "questions.json"),
    "longmemeval sessions": (LongMemEval(), "sessions.jsonl.gz"),
    "locomo": (LoCoMo(), "locomo10.json"),
    "realmem": (RealMem(), "Ann_dialogues_256k.json"),
    "bfcl questions": (BFCLMemory(), "BFCL_v4_memory.json"),
    "bfcl answers": (BFCLMemory(), "possible_answer/BFCL_v4_memory.json"),
    "bfcl sessions": (BFCLMemory(), "memory_prereq_conversation/memory_customer.json"),
}


@pytest.fixture(params=FILES)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Task, Path, Path]:
    """A task, what it is given, and the file of it to break."""
    task, name = FILES[request.param]
    match task.name, request.param:
        case "longmemeval", "longmemeval":
            write_json(tmp_path / name, LONGMEMEVAL)
        case "longmemeval", _:
            split_longmemeval(tmp_path)
        case "locomo", _:
            write_json(tmp_path / name, LOCOMO)
        case "realmem", _:
            write_json(tmp_path / name, REALMEM)
        case _:
            bfcl(tmp_path)
    file = tmp_path / name
    return task, file if name in ("s.json", "locomo10.json") else tmp_path, file


def broken(value: object) -> Iterator[object]:
    """A value with each of its parts left out, or of another kind."""
    yield from (None, True, -1, 10**30, 0.5, "", "x", "\0", "\ud800", [], {}, [[]], [None], {"x": 1})
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: worse} for worse in broken(inner))
    if isinstance(value, list):
        yield [*value, *value]
        for at, inner in enumerate(value):
            yield from ([*value[:at], worse, *value[at + 1 :]] for worse in broken(inner))


def test_whatever_part_is_missing_or_of_another_kind_the_error_names_file_and_record(published: tuple[Task, Path, Path]) -> None:
    task, given, file = published
    lines = file.name.endswith(("jsonl.gz", "memory.json", "customer.json"))
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    value = [json.loads(line) for line in data.splitlines()] if lines else json.loads(data)
    refused = []
    for worse in broken(value):
        if lines and not (isinstance(worse, list) and worse):
            continue
        if lines:
            write_lines(file, worse)  # type: ignore[arg-type]
        else:
            write_json(file, worse)
        try:
            assert_read(task.load(given))
        except DatasetError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(error.startswith(str(given)) for error in refused)


def assert_read(data: Dataset) -> None:
    """What was read in spite of a change can be run."""
    for question in data.questions:
        said = data.conversations[question.conversation].said
        assert all(0 <= position < question.after <= len(said) for position in question.gold)
        assert isinstance(question.text, str)
        assert all(isinstance(answer, str) for answer in question.answers)


@pytest.mark.parametrize(
    "data",
    [b"", b"  \n", b"{", b"[" * 100_000, b'\xff\xfe"x"', b"[" + b"9" * 5000 + b"]", b"no json"],
    ids=["empty", "blank", "cut", "too deep", "not UTF-8", "a huge number", "not JSON"],
)
def test_a_file_that_is_no_json_is_named(published: tuple[Task, Path, Path], data: bytes) -> None:
    task, given, file = published
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    with pytest.raises(DatasetError, match=file.name):
        task.load(given)


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    file = split_longmemeval(tmp_path) / "sessions.jsonl.gz"
    whole = file.read_bytes()
    for cut in (whole[: len(whole) // 2], whole[:5], b"plain text", whole[:20] + b"\0\0\0" + whole[23:]):
        file.write_bytes(cut)
        with pytest.raises(DatasetError, match=r"sessions\.jsonl\.gz, the file: is no whole gzip file"):
            LongMemEval().load(tmp_path)


def test_a_missing_path_says_what_to_give(published: tuple[Task, Path, Path], tmp_path: Path) -> None:
    task, given, file = published
    with pytest.raises(DatasetError, match=r"is missing: give"):
        task.load(None)
    with pytest.raises(DatasetError, match=r"does not exist: give"):
        task.load(tmp_path / "elsewhere")
    file.unlink()
    with pytest.raises(DatasetError):
        task.load(given)


def test_a_list_without_records_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the file: is a list without records"):
        LoCoMo().load(write_json(tmp_path / "locomo10.json", []))


def test_a_file_that_is_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        LoCoMo().load(tmp_path)


def test_a_question_that_is_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"record 2 \(q1\): is there twice"):
        LongMemEval().load(write_json(tmp_path / "s.json", [*LONGMEMEVAL, LONGMEMEVAL[0]]))
