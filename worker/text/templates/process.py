"""Renders chats with adapters' templates: `python -m worker.text.templates.process`.

A template is a program. Jinja's sandbox keeps it from files and the network, but not from endless
loops, huge numbers and huge texts. This process reads chats from a connection and answers them one
after another. The connection's file descriptor is the process's argument. The process ends when a
chat exceeds a limit. `sandbox.py` starts it, and defines the fields of chats and answers.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from jinja2 import TemplateSyntaxError

from shared.protocol.jobs import PromptEnd
from shared.sandbox import end_after_cpu_s, limit_process
from worker.text.templates.chat_template import render_chat
from worker.upstream.chat_templates import PreTrainedTokenizerBase

MAX_CPU_S = 1.0
"""Maximum CPU time for rendering one chat, in seconds."""
MAX_BYTES = 1 << 30
"""Limit of the process's address space in bytes, including the interpreter."""
MAX_TEXT_CHARS = 1 << 20
"""Maximum number of characters that a template may write for a short chat; see MAX_GROWTH."""
MAX_GROWTH = 4
"""Maximum size of the text for a long chat, as a multiple of the chat's size.

This limit applies if it is larger than MAX_TEXT_CHARS."""


class _Renderer(PreTrainedTokenizerBase):  # type: ignore[misc]  # transformers has no types
    """A tokenizer with special tokens only. transformers needs a tokenizer to render templates."""

    def __init__(self, special_tokens: Mapping[str, str]) -> None:
        self._tokens = dict(special_tokens)
        self.chat_template = None

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return self._tokens


def main() -> None:
    """Answer chats until the worker closes the connection."""
    limit_process(MAX_BYTES)
    worker = Connection(int(sys.argv[1]))
    with suppress(EOFError):
        while True:
            question = worker.recv_bytes()
            end_after_cpu_s(MAX_CPU_S)
            answer = _answer(question)
            end_after_cpu_s(0)
            worker.send_bytes(answer)


def _answer(question: bytes) -> bytes:
    start_s = time.process_time()
    text = error = ""
    is_malformed = False
    try:
        text = _rendered(json.loads(question))
        limit = max(MAX_TEXT_CHARS, MAX_GROWTH * len(question))
        if len(text) > limit:
            text, error = "", f"it writes more than {limit} characters"
    except TemplateSyntaxError as failure:
        error, is_malformed = str(failure), True
    except MemoryError:
        os.abort()
    except Exception as failure:  # noqa: BLE001  (a template can raise anything)
        error = str(failure) or type(failure).__name__
    answer = {"text": text, "error": error, "is_malformed": is_malformed}
    return json.dumps({**answer, "cpu_s": time.process_time() - start_s}).encode()


def _rendered(chat: Mapping[str, Any]) -> str:
    return render_chat(
        _Renderer(chat["base_tokens"]),
        chat["messages"],
        tools=chat["tools"],
        template=chat["template"],
        special_tokens=chat["special_tokens"],
        variables=chat["variables"],
        prompt_end=PromptEnd(chat["prompt_end"]),
        is_generic=chat["is_generic"],
    )


if __name__ == "__main__":
    main()
