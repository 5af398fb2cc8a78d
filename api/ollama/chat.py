"""Translates requests to /api/chat into chat requests. Pure."""

from collections.abc import Mapping
from typing import Any

from api.http.validation import validate
from api.ollama.body import Kind, request_of
from api.ollama.conversation import ChatMessage, chat_messages, chat_tools
from api.ollama.fields import NAMES, chat_fields, thinking_check, unused_fields, with_options
from api.ollama.known_fields import MESSAGES
from api.requests.object_kinds import unknown_in
from api.requests.unknown_fields import unknown_fields
from api.requests.viewed import ViewedRequest
from api.schema.ollama import OllamaChatRequest
from shared.protocol.jobs import View


def parse_chat(raw: Mapping[str, Any]) -> OllamaChatRequest:
    """Validate the body of a request to /api/chat.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    return validate(OllamaChatRequest, with_options(raw))


def viewed_chat(request: OllamaChatRequest, sent_model: str) -> ViewedRequest:
    """Convert a request to /api/chat into the form of a chat request.

    `sent_model` is the name that the request gives the model. The answer repeats this name.

    Raises:
        JobFailed: a message is invalid. The error names it.
    """
    sent = request.messages or []
    return ViewedRequest(
        body={
            **chat_fields(request),
            **_conversation(chat_messages(sent)),
            "tools": chat_tools(request.tools),
        },
        view=View.OLLAMA,
        request=request_of(Kind.CHAT, sent_model),
        names=NAMES,
        images=tuple(
            f"messages[{i}].images[{j}]"
            for i, message in enumerate(sent)
            for j in range(len(message.get("images") or ()))
        ),
        ignored=tuple(unused_fields(request)),
        unknown=(*unknown_fields(request), *unknown_in(sent, "messages", MESSAGES)),
        check=thinking_check(request),
    )


def _conversation(messages: list[ChatMessage]) -> dict[str, Any]:
    """Return the fields of a chat request that hold the conversation.

    As in Ollama, if the model wrote the last message, the answer continues this message.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or "tool_calls" in last:
        return {"messages": messages}
    if not last["content"] and len(messages) > 1:  # some clients send it as the answer's place
        return {"messages": messages[:-1]}
    continued = {"continue_final_message": True, "add_generation_prompt": False}
    return {"messages": messages, **continued}
