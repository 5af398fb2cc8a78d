"""Requests and responses of /tokenize, /detokenize and /tokenizer_info."""

from typing import Annotated, Any

from pydantic import Field

from api.schema.base import MAX_LISTED, Body, RequestModel
from api.schema.generation import TokenIds
from api.schema.tools import PlainTools
from shared.json_budget import MAX_VALUES

_MODEL = "Base model or adapter; GET /v1/models lists their names. Defaults to the base model."
_AS_IN_CHATS = "As in /v1/chat/completions."


class TokenizeRequest(RequestModel):
    """Body of POST /tokenize: a text or a chat. A field that is null has its default value."""

    model: Annotated[str, Field(min_length=1)] | None = Field(None, description=_MODEL)
    prompt: str | None = Field(None, description="A text.")
    content: str | None = None
    """llama.cpp's name of prompt. If it is sent, add_special defaults to false."""
    messages: (
        Annotated[list[dict[str, Any]], Field(max_length=MAX_LISTED, fail_fast=True)] | None
    ) = Field(None, description=f"A chat. {_AS_IN_CHATS}")
    add_special_tokens: bool | None = None
    """Whether the tokenizer adds special tokens to a text. Defaults to true. A chat has the special
    tokens of its template only."""
    add_special: bool | None = None
    """llama.cpp's name of add_special_tokens, for a text in content."""
    return_token_strs: bool | None = None
    """Whether to return the names of the tokens in the vocabulary."""
    tools: PlainTools | None = Field(None, description=_AS_IN_CHATS)
    tool_choice: Any = Field(None, description=_AS_IN_CHATS)
    add_generation_prompt: bool | None = Field(None, description=_AS_IN_CHATS)
    continue_final_message: bool | None = Field(None, description=_AS_IN_CHATS)
    chat_template_kwargs: dict[str, Any] | None = Field(None, description=_AS_IN_CHATS)


class Tokenized(Body):
    """Response of POST /tokenize."""

    count: int
    max_model_len: int = Field(description="Context length of the model.")
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(RequestModel):
    """Body of POST /detokenize: token ids."""

    model: Annotated[str, Field(min_length=1)] | None = Field(None, description=_MODEL)
    tokens: Annotated[TokenIds, Field(max_length=MAX_VALUES)]


class Detokenized(Body):
    """Response of POST /detokenize."""

    prompt: str = Field(description="Text of the tokens, including special tokens.")
    content: str = Field(description="The same, under llama.cpp's name.")
    text: str = Field(description="The same, under SGLang's name.")


class TokenizerInfo(Body):
    """Response of GET /tokenizer_info: facts about the base model's tokenizer."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    chat_template: str | dict[str, str] | None
