"""Marks parametrized cases slow, except a representative part."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(is_quick: Callable[..., bool], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return `pytest.param` of each argument tuple, marked slow if `is_quick(*case)` is false."""
    return [
        pytest.param(*case, marks=() if is_quick(*case) else pytest.mark.slow) for case in cases
    ]
