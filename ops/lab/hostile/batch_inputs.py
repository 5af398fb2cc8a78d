"""Generates the input files of a run's batches. Does no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

PATH = "/v1/completions"
BASE = "simulated"
FLAKY = "flaky"
"""Adapter whose source is periodically unavailable."""
ADAPTERS = tuple(f"adapter-{number}" for number in range(12))
"""Adapters that the other tenants use. Together they exceed the worker's memory for adapters."""
MAX_TOKENS = 8
NESTED_LEVELS = 300
NUM_BAD_ITEMS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileKind:
    """One kind of hostile batches."""

    name: str
    content: bytes
    is_limited: bool = False
    """Whether the batch is created with a key that permits few requests per minute."""
    fails_whole: bool = False
    """Whether the pool must refuse the whole input file, with errors that name the lines."""


def requests(models: Sequence[str], number: int) -> bytes:
    """Return a valid input file, whose lines request the models in turn."""
    return b"\n".join(_line(i, _body(models[i % len(models)], i)) for i in range(number))


def hostile_kinds(number: int) -> list[HostileKind]:
    """Return all kinds of hostile batches. Most input files have about `number` lines."""
    poison = [_line(i, {**_body(BASE, i), **bad}) for i, bad in enumerate(_bad_fields())]
    nested = b"[" * NESTED_LEVELS + b"]" * NESTED_LEVELS
    deep = _line(0, _body(BASE, 0)).replace(b'"seed":0', b'"x":' + nested)
    return [
        HostileKind(name="slow windows", content=requests([BASE], number), is_limited=True),
        HostileKind(name="poison lines", content=b"\n".join(poison)),
        HostileKind(name="deep lines", content=deep, fails_whole=True),
        HostileKind(name="flaky source", content=requests([FLAKY, BASE], number)),
    ]


def custom_ids(content: bytes) -> list[str]:
    """Return the ids of the lines of an input or output file, sorted."""
    return sorted(orjson.loads(line)["custom_id"] for line in content.splitlines())


def _bad_fields() -> Iterator[dict[str, Any]]:
    yield {"prompt": [{}] * NUM_BAD_ITEMS}
    yield {"prompt": ["x"] * NUM_BAD_ITEMS}
    yield {"model": "unknown"}
    yield {"n": 10**9}
    yield {"max_tokens": -1}
    yield {"temperature": 1e308}
    yield {"stop": ["a" * 10_000] * 100}
    yield {"logit_bias": {str(i): 1e9 for i in range(NUM_BAD_ITEMS)}}
    yield {f"unknown_{i}": i for i in range(NUM_BAD_ITEMS)}


def _body(model: str, number: int) -> dict[str, Any]:
    prompt = f"prompt {number}"
    fields = {"max_tokens": MAX_TOKENS, "ignore_eos": True}
    return {"model": model, "prompt": prompt, "seed": number, **fields}


def _line(number: int, body: dict[str, Any]) -> bytes:
    custom_id = f"request {number}"
    return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": PATH, "body": body})
