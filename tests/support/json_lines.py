"""Reads streams of JSON objects, one on each line, as Ollama's clients do."""

from typing import Any

import orjson


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the objects. As in Ollama's client for Python, every line must have one."""
    assert text.endswith("\n")
    return [orjson.loads(line) for line in text.removesuffix("\n").split("\n")]


def joined(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer without a stream that has the same content as the lines of a stream."""
    *parts, end = lines
    assert [part["done"] for part in parts] == [False] * len(parts)
    key = "message" if "message" in end else "response"
    answer = dict(end)
    if key == "response":
        answer["response"] = "".join(part["response"] for part in lines)
        thinking = "".join(part.get("thinking", "") for part in lines)
        answer |= {"thinking": thinking} if thinking else {}
    else:
        messages = [part["message"] for part in lines]
        content = "".join(message["content"] for message in messages)
        thinking = "".join(message.get("thinking", "") for message in messages)
        calls = [call for message in messages for call in message.get("tool_calls", ())]
        answer["message"] = {
            "role": "assistant",
            "content": content,
            **({"thinking": thinking} if thinking else {}),
            **({"tool_calls": calls} if calls else {}),
        }
    logprobs = [each for part in lines for each in part.get("logprobs", ())]
    return answer | ({"logprobs": logprobs} if logprobs else {})
