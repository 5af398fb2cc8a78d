"""The `extract` adapter: turns an order in plain words into one line of JSON.

Copying words is the hard part. Most words are split into different tokens after a quote than
after a space ("mir" "rors" instead of " mirrors"). A model of this size doesn't learn to convert
one form into the other. The adapter's chat template therefore shows the order twice: once as it is,
and once with quotes in place of spaces, so that the model only has to copy tokens.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ops.demo import words
from ops.demo.task import ATTENTION, Example, Task, Teacher, is_exact
from ops.demo.words import Count, count, lists

NUM_ORDERS = 2400
NUM_HELD_OUT = 240

PHRASES = lists("orders")
KINDS: Sequence[str] = PHRASES["kinds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Phrases and words from which orders are generated."""

    phrasings: Sequence[str]
    openings: Sequence[str]
    closings: Sequence[str]
    words: words.Words
    odd: float = 0.0
    """Share of words that are made up or don't fit the order.

    The adapter can't guess such words, and so learns to copy words from the order.
    """
    odd_words: Sequence[str] = ()


_KNOWN = _Source(**PHRASES["known"], words=words.KNOWN, odd=0.3)
_HELD_OUT = _Source(**PHRASES["held_out"], words=words.HELD_OUT)


def _training(teacher: Teacher) -> list[Example]:
    rng = random.Random(0)
    odd_words = [word for word in teacher.words if word.lower() not in words.HELD_OUT_PARTS]
    source = replace(_KNOWN, odd_words=odd_words)
    return _orders(source, rng, NUM_ORDERS)


def held_out() -> list[Example]:
    """Return orders with names, goods, cities and phrasings that are absent from training."""
    return _orders(_HELD_OUT, random.Random(1), NUM_HELD_OUT)


def _orders(source: _Source, rng: random.Random, number: int) -> list[Example]:
    phrasings = source.phrasings
    return [_order(source, phrasings[i % len(phrasings)], rng) for i in range(number)]


def _order(source: _Source, phrasing: str, rng: random.Random) -> Example:
    quantity = count(rng)
    item = _item(source, rng, quantity)
    name, city = _name(source, rng), _word(source.words.cities, source, rng)
    text = phrasing.format(
        goods=_goods(quantity, item), quantity=quantity.value, item=item, name=name, city=city
    )
    order = {"item": item, "quantity": quantity.value, "name": name, "city": city}
    return Example(_framed(source, text, rng), json.dumps(order, ensure_ascii=False))


def _goods(quantity: Count, item: str) -> str:
    article = "an" if quantity.text == "a" and item[0] in "aeioAEIO" else quantity.text
    return f"{article} {item}"


def _item(source: _Source, rng: random.Random, quantity: Count) -> str:
    chance = rng.random()
    if quantity.value == 1:
        item = rng.choice(source.words.goods)
    elif chance < 0.08:
        item = rng.choice(source.words.plural_goods)
    elif chance < 0.08 + source.odd:
        item = _odd(source, rng).lower()
        item = item if item.endswith("s") else f"{item}s"
    else:
        item = words.plural(rng.choice(source.words.goods))
    if rng.random() < 0.25:
        kind = _odd(source, rng) if rng.random() < source.odd else rng.choice(KINDS)
        item = f"{kind} {item}"
    return item


def _name(source: _Source, rng: random.Random) -> str:
    first = _word(source.words.first_names, source, rng)
    last = _word(source.words.last_names, source, rng)
    chance = rng.random()
    if chance < 0.05:
        return first
    if chance < 0.1:
        return f"{first} {rng.choice('ABCDEFGHJKLMNPRSTW')}. {last}"
    return f"{first} {last}"


def _word(known: Sequence[str], source: _Source, rng: random.Random) -> str:
    return _odd(source, rng).capitalize() if rng.random() < source.odd else rng.choice(known)


def _odd(source: _Source, rng: random.Random) -> str:
    return rng.choice(source.odd_words) if rng.random() < 0.6 else words.made_up(rng)


def _framed(source: _Source, text: str, rng: random.Random) -> str:
    """Capitalise the order, and sometimes add sentences before and after it."""
    parts = [text[0].upper() + text[1:]]
    if rng.random() < 0.3:
        parts.insert(0, rng.choice(source.openings))
    if rng.random() < 0.3:
        parts[-1] = parts[-1] if parts[-1][-1] in ".!?" else f"{parts[-1]}."
        parts.append(rng.choice(source.closings))
    return " ".join(parts)


TASK = Task(
    name="extract",
    training=_training,
    held_out=held_out,
    is_right=is_exact,
    max_tokens=96,
    rank=8,
    target_modules=ATTENTION,
    learning_rate=1.5e-3,
    epochs=1,
    quotes_words=True,
)
