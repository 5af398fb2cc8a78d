"""Names, goods, numbers and dates for questions and their SQL."""

import calendar
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ops.demo import words
from ops.demo.sql import shop
from ops.demo.words import in_words, lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Lists of values to sample from."""

    words: words.Words
    cities: Sequence[str]
    products: Sequence[str]
    categories: Sequence[str]
    made_up: float
    """Share of the names, cities and products that are made up."""


KNOWN = Source(
    words=words.KNOWN,
    cities=words.KNOWN.cities,
    products=words.KNOWN.goods,
    categories=(*shop.KNOWN["catalogue"], *lists("shop")["other_categories"]),
    made_up=0.15,
)
HELD_OUT = Source(
    words=words.HELD_OUT,
    cities=tuple(shop.HELD_OUT["places"]),
    products=[name for names in shop.HELD_OUT["catalogue"].values() for name in names],
    categories=tuple(shop.HELD_OUT["catalogue"]),
    made_up=0.0,
)


def sample_values(source: Source, rng: random.Random) -> dict[str, str]:
    """Return a random value for each placeholder in phrases and SQL."""
    few, n, price = rng.randint(2, 10), rng.randint(2, rng.choice((20, 100, 500))), _price(rng)
    day = shop.FIRST_DAY + timedelta(days=rng.randrange((shop.LAST_DAY - shop.FIRST_DAY).days))
    product = _word(source.products, source, rng).lower()
    names = source.words
    first, last = (_word(w, source, rng) for w in (names.first_names, names.last_names))
    city = _word(source.cities, source, rng)
    return {
        "name": f"{first} {last}",
        "letter": rng.choice("ABCDEFGHIJKLMNOPRSTUVWYZ"),
        "city": city,
        "city2": rng.choice([other for other in source.cities if other != city]),
        "country": rng.choice(names.countries),
        "product": product,
        "products": words.plural(product),
        "category": rng.choice(source.categories),
        "price": price,
        "price2": str(int(float(price)) + rng.randint(5, 300)),
        "n": str(n),
        "few": rng.choice((str(few), in_words(few))),
        "few_n": str(few),
        "year": str(day.year),
        "month": f"{calendar.month_name[day.month]} {day.year}",
        "month_iso": f"{day:%Y-%m}",
        "date": _date_text(day, rng),
        "date_iso": str(day),
    }


def _word(known: Sequence[str], source: Source, rng: random.Random) -> str:
    return words.made_up(rng) if rng.random() < source.made_up else rng.choice(known)


def _price(rng: random.Random) -> str:
    euros = rng.choice((rng.randint(2, 400), 5 * rng.randint(1, 60)))
    return f"{euros}.{rng.choice(('5', '99', '95'))}" if rng.random() < 0.1 else str(euros)


def _date_text(day: date, rng: random.Random) -> str:
    month = calendar.month_name[day.month]
    forms = (str(day), str(day), f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}")
    return rng.choice(forms)
