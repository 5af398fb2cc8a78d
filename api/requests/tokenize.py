"""Translates requests to /tokenize and /detokenize into calls to a worker. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.http.validation import validate
from api.requests.translate import Admission, chat_job, parse_chat
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.schema.tokenize import DetokenizeRequest, TokenizeRequest
from shared.errors import invalid_param, invalid_value
from shared.protocol.tokenization import EncodeChat, EncodeText

CHAT_FIELDS = (
    *("messages", "tools", "tool_choice"),
    *("add_generation_prompt", "continue_final_message", "chat_template_kwargs"),
)
UNSUPPORTED: NeutralValues = {
    "chat_template": (),
    "mm_processor_kwargs": (),
    "parse_special": (True,),
    "with_pieces": (False,),
}


def parse_tokenize(raw: Mapping[str, Any]) -> TokenizeRequest:
    """Validate the body of a request to /tokenize and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(TokenizeRequest, drop_unsupported(raw, UNSUPPORTED))
    given = [n for n in ("prompt", "content", "messages") if getattr(request, n) is not None]
    if len(given) != 1:
        raise invalid_value("prompt: send one of prompt, messages and content", "prompt")
    if request.messages is not None and request.add_special_tokens:
        raise invalid_param(
            "add_special_tokens",
            "can't be true with messages, because the chat template adds them",
        )
    return request


def parse_detokenize(raw: Mapping[str, Any]) -> DetokenizeRequest:
    """Validate the body of a request to /detokenize and return the request.

    Raises:
        JobFailed: a field is invalid. The error names the field.
    """
    return validate(DetokenizeRequest, raw)


def encode_call(request: TokenizeRequest, admission: Admission) -> EncodeText | EncodeChat:
    """Return the call that tokenizes a request's text or chat.

    The text or chat may be longer than the context.

    Raises:
        JobFailed: the chat is invalid. The error names the field.
    """
    with_names = bool(request.return_token_strs)
    if request.messages is not None:
        fields = {name: getattr(request, name) for name in CHAT_FIELDS}
        chat = parse_chat({"model": request.model or "base", **fields})
        job = chat_job(chat, replace(admission, max_token_bytes=0))
        return EncodeChat(job=job, with_names=with_names)
    if request.content is not None:
        adds_special = bool(request.add_special or request.add_special_tokens)
        return EncodeText(
            text=request.content, add_special_tokens=adds_special, with_names=with_names
        )
    return EncodeText(
        text=request.prompt or "",
        add_special_tokens=request.add_special_tokens is not False,
        with_names=with_names,
    )
