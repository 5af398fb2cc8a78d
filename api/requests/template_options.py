"""Determines how the chat template renders a request. Pure."""

from typing import Any

from api.schema.chat import ChatCompletionRequest
from shared.errors import invalid_param
from shared.protocol.jobs import PromptEnd


def template_kwargs(request: ChatCompletionRequest) -> dict[str, Any] | None:
    """Return additional variables for the chat template, or None if there are none.

    The field `reasoning_effort` sets the variable of this name. It also sets the variables that
    switch thinking on or off, unless the client sets them.

    Raises:
        JobFailed: the request has two values of the variable `enable_thinking`.
    """
    kwargs = _client_kwargs(request)
    if (effort := request.reasoning_effort) is not None:
        kwargs = {**thinking_switch(effort != "none"), **kwargs, "reasoning_effort": effort}
    return kwargs or None


def _client_kwargs(request: ChatCompletionRequest) -> dict[str, Any]:
    """Return the variables that the client sets for the chat template."""
    kwargs, thinks = request.chat_template_kwargs or {}, request.enable_thinking
    if thinks is None:
        return dict(kwargs)
    other = kwargs.get("enable_thinking")
    if other is not None and other is not thinks:
        raise invalid_param(
            "enable_thinking",
            "differs from chat_template_kwargs.enable_thinking; leave one of them out",
        )
    return {**kwargs, "enable_thinking": thinks}


def thinking_switch(thinks: bool) -> dict[str, Any]:
    """Return the variables that make chat templates switch thinking on or off.

    DeepSeek's templates read `thinking`, and most others `enable_thinking`.
    """
    return {"enable_thinking": thinks, "thinking": thinks}


def prompt_end(request: ChatCompletionRequest) -> PromptEnd:
    """Return how the prompt of the request must end.

    Raises:
        JobFailed: the request asks both for a new answer and for the continuation of a message.
    """
    if request.continue_final_message:
        if request.add_generation_prompt:
            raise invalid_param(
                "continue_final_message", "and add_generation_prompt can't both be true"
            )
        return PromptEnd.MESSAGE
    return PromptEnd.NOTHING if request.add_generation_prompt is False else PromptEnd.ANSWER


def echoed(request: ChatCompletionRequest) -> str:
    """Return the text with which the content of each answer begins.

    As in vLLM, `echo` repeats the last message if its role is also the role of the answer. If the
    prompt ends without a header for the answer, the answer has the role of the last message.
    """
    last = request.messages[-1]
    has_same_role = last.role == "assistant" or prompt_end(request) is not PromptEnd.ANSWER
    return last.text if request.echo and has_same_role else ""
