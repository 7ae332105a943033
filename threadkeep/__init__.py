"""threadkeep keeps the thread of a conversation: it stores every message, and assembles what fits before each model call."""

from threadkeep.backends.base import Backend, Event, Profile, Reply, Usage
from threadkeep.backends.candidate import Candidate
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.backends.openai import OpenAIBackend
from threadkeep.backends.router import Router
from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.embedders.base import Embedder
from threadkeep.embedders.sentence_transformer import SentenceTransformerEmbedder
from threadkeep.memory.async_memory import AsyncMemory, AsyncSession
from threadkeep.memory.async_turn import AsyncTurn
from threadkeep.memory.blob import Blob
from threadkeep.memory.branch import Branch
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context, Decision, Pick
from threadkeep.memory.errors import (
    BackendError,
    CannotFit,
    Conflict,
    EmbedderError,
    InvalidMessage,
    InvalidReply,
    InvalidSetting,
    KeyReused,
    LeaseLost,
    MissingExtra,
    ModelUnavailable,
    NoBackend,
    NoCandidate,
    NotFound,
    SchemaTooNew,
    SchemaTooOld,
    SpendCapReached,
    StoreBusy,
    StoreError,
    StrategyError,
    SummariserError,
    Superseded,
    ThreadkeepError,
    Truncated,
)
from threadkeep.memory.history import Entry, History
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import ImagePart, Message, TextPart, ToolCall
from threadkeep.memory.money import Price
from threadkeep.memory.searching import Found
from threadkeep.memory.session import Session
from threadkeep.memory.spending import SpendCap
from threadkeep.memory.summarising import BackendSummariser
from threadkeep.memory.tokens import TokenCounter
from threadkeep.memory.turn import Turn
from threadkeep.stores.sql import SQLStore
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.clear_tool_results import ClearToolResults
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.rolling_summary import RollingSummary
from threadkeep.strategies.selective import Selective
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.strategies.summariser import Said, Summariser, SummaryRequest
from threadkeep.strategies.summariser_extractive import ExtractiveSummariser
from threadkeep.strategies.summary_tree import SummaryTree

__all__ = [
    "AsyncMemory",
    "AsyncSession",
    "AsyncTurn",
    "Backend",
    "BackendError",
    "BackendSummariser",
    "Blob",
    "Branch",
    "Budget",
    "Candidate",
    "CannotFit",
    "ClearToolResults",
    "Compose",
    "Conflict",
    "Context",
    "Decision",
    "Embedder",
    "EmbedderError",
    "Entry",
    "Event",
    "ExtractiveSummariser",
    "Found",
    "History",
    "ImagePart",
    "InvalidMessage",
    "InvalidReply",
    "InvalidSetting",
    "KeyReused",
    "LeaseLost",
    "LlamaCpp",
    "Memory",
    "Message",
    "MissingExtra",
    "ModelUnavailable",
    "NoBackend",
    "NoCandidate",
    "NotFound",
    "OpenAIBackend",
    "Pick",
    "Price",
    "Profile",
    "Recall",
    "Reply",
    "RollingSummary",
    "Router",
    "SQLStore",
    "Said",
    "SchemaTooNew",
    "SchemaTooOld",
    "ScriptedBackend",
    "Selective",
    "SentenceTransformerEmbedder",
    "Session",
    "SlidingWindow",
    "SpendCap",
    "SpendCapReached",
    "StoreBusy",
    "StoreError",
    "Strategy",
    "StrategyError",
    "Summariser",
    "SummariserError",
    "SummaryRequest",
    "SummaryTree",
    "Superseded",
    "TextPart",
    "ThreadkeepError",
    "TiktokenCounter",
    "TokenCounter",
    "ToolCall",
    "Truncated",
    "Turn",
    "Usage",
]
