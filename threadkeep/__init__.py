"""threadkeep keeps the thread of a conversation: it stores every message, and assembles what fits before each model call."""

from threadkeep.backends.base import Backend, Event, Profile, Reply, Usage
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.async_memory import AsyncMemory, AsyncSession
from threadkeep.memory.async_turn import AsyncTurn
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context, Decision, Pick
from threadkeep.memory.errors import (
    BackendError,
    CannotFit,
    Conflict,
    InvalidMessage,
    InvalidSetting,
    KeyReused,
    LeaseLost,
    MissingExtra,
    ModelUnavailable,
    NoBackend,
    NotFound,
    SchemaTooNew,
    SchemaTooOld,
    StoreBusy,
    StoreError,
    StrategyError,
    ThreadkeepError,
)
from threadkeep.memory.history import Entry, History
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import ImagePart, Message, TextPart, ToolCall
from threadkeep.memory.session import Session
from threadkeep.memory.tokens import TokenCounter
from threadkeep.memory.turn import Turn
from threadkeep.stores.sql import SQLStore
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.sliding_window import SlidingWindow

__all__ = [
    "AsyncMemory",
    "AsyncSession",
    "AsyncTurn",
    "Backend",
    "BackendError",
    "Budget",
    "CannotFit",
    "Conflict",
    "Context",
    "Decision",
    "Entry",
    "Event",
    "History",
    "ImagePart",
    "InvalidMessage",
    "InvalidSetting",
    "KeyReused",
    "LeaseLost",
    "LlamaCpp",
    "Memory",
    "Message",
    "MissingExtra",
    "ModelUnavailable",
    "NoBackend",
    "NotFound",
    "Pick",
    "Profile",
    "Reply",
    "SQLStore",
    "SchemaTooNew",
    "SchemaTooOld",
    "ScriptedBackend",
    "Session",
    "SlidingWindow",
    "StoreBusy",
    "StoreError",
    "Strategy",
    "StrategyError",
    "TextPart",
    "ThreadkeepError",
    "TiktokenCounter",
    "TokenCounter",
    "ToolCall",
    "Turn",
    "Usage",
]
