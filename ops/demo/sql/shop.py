"""In-memory SQLite database of the shop that the questions of the `sql` adapter are about."""

import random
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

from ops.demo import words

SCHEMA = """\
CREATE TABLE customers (
    id INTEGER PRIMARY KEY, name TEXT, city TEXT, country TEXT
);
CREATE TABLE products (
    id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL, stock INTEGER
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers (id),
    product_id INTEGER REFERENCES products (id), quantity INTEGER, date TEXT -- YYYY-MM-DD
);
"""
NUM_CUSTOMERS = 40
"""Number of customers with known names, and also the number of customers with held-out names."""
NUM_ORDERS = 900
FIRST_DAY, LAST_DAY = date(2021, 1, 1), date(2025, 12, 31)
MAX_TICKS = 5_000
"""Maximum SQLite instructions of a query, in thousands. Right answers need far fewer of them."""

PLACES = {
    "Berlin": "Germany", "Dresden": "Germany", "Paris": "France", "Nantes": "France",
    "Rome": "Italy", "Madrid": "Spain", "Vienna": "Austria", "Warsaw": "Poland", "Oslo": "Norway",
    "Boston": "United States", "Chicago": "United States", "Toronto": "Canada", "Lima": "Peru",
    "Mumbai": "India", "Nairobi": "Kenya", "Sydney": "Australia", "Athens": "Greece",
    "Dublin": "Ireland", "Seoul": "South Korea", "Cairo": "Egypt",
}  # fmt: skip
HELD_OUT_PLACES = {
    "Osaka": "Japan", "Kyoto": "Japan", "Porto": "Portugal", "Stockholm": "Sweden",
    "Uppsala": "Sweden", "Jakarta": "Indonesia", "Quito": "Ecuador", "Cuenca": "Ecuador",
    "Groningen": "Netherlands", "Lyon": "France", "Munich": "Germany", "Hamburg": "Germany",
    "Florence": "Italy", "Valencia": "Spain", "Houston": "United States", "Vancouver": "Canada",
    "Perth": "Australia", "Delhi": "India", "Bergen": "Norway", "Geneva": "Switzerland",
}  # fmt: skip
CATALOGUE = {
    "electronics": "monitor, keyboard, webcam, laptop, router, headset, tablet, drone",
    "furniture": "desk, armchair, bookcase, wardrobe, coffee table, office chair",
    "kitchen": "kettle, toaster, frying pan, blender, rice cooker, cutting board",
    "garden": "garden hose, lawn mower, shovel, rake, parasol, wheelbarrow",
    "sports": "football, yoga mat, racket, dumbbell, skateboard, tennis ball",
    "office": "stapler, whiteboard, notebook, ring binder, clipboard, printer",
    "toys": "kite, puzzle, doll, board game, teddy bear, toy car",
    "clothing": "rain jacket, sweater, belt, hoodie, scarf, straw hat",
    "tools": "hammer, power drill, screwdriver, ladder, wrench, jigsaw",
    "books": "cookbook, dictionary, sketchbook",
}
"""Products by category."""
HELD_OUT_CATALOGUE = {
    "music": "violin, guitar, harmonica",
    "bathroom": "mirror, bottle of shampoo, electric heater, shoe rack, rubber duck, vase",
    "pantry": "jar of honey, bag of flour, box of chocolate, tin of sardines, cheese grater",
    "crafts": "drum of paint, ceramic tile, toolbox, leather glove, wooden table",
    "travel": "travel adapter, rowing boat, surfboard, calculator",
}

Rows = list[tuple[Any, ...]]


def run(sql: str) -> Rows:
    """Run a read-only query on the shop, and return the rows of its result.

    Raises:
        sqlite3.Error: the query is invalid for this schema, changes data, or takes too long.
    """
    shop = _shop()
    ticks = iter(range(MAX_TICKS))
    shop.set_progress_handler(lambda: next(ticks, None) is None, 1000)
    return shop.execute(sql).fetchall()


@cache
def _shop() -> sqlite3.Connection:
    rng = random.Random(4)
    shop = sqlite3.connect(":memory:")
    shop.executescript(SCHEMA)
    customers = [
        *_customers(rng, words.FIRST_NAMES, words.LAST_NAMES, PLACES),
        *_customers(rng, words.HELD_OUT_FIRST_NAMES, words.HELD_OUT_LAST_NAMES, HELD_OUT_PLACES),
    ]
    products = _products(rng)
    _fill(shop, "customers (name, city, country)", customers)
    _fill(shop, "products (name, category, price, stock)", products)
    orders = _orders(rng, len(customers), len(products))
    _fill(shop, "orders (customer_id, product_id, quantity, date)", orders)
    shop.execute("PRAGMA query_only = ON")
    return shop


def _fill(shop: sqlite3.Connection, columns: str, rows: Rows) -> None:
    marks = ", ".join("?" * len(rows[0]))
    shop.executemany(f"INSERT INTO {columns} VALUES ({marks})", rows)


def _customers(
    rng: random.Random, first: Sequence[str], last: Sequence[str], places: Mapping[str, str]
) -> Rows:
    firsts, lasts = (rng.sample(names, NUM_CUSTOMERS) for names in (first, last))
    cities = [rng.choice(list(places)) for _ in range(NUM_CUSTOMERS)]
    names = (f"{one} {other}" for one, other in zip(firsts, lasts, strict=True))
    return [(name, city, places[city]) for name, city in zip(names, cities, strict=True)]


def _products(rng: random.Random) -> Rows:
    """Return products with distinct prices, so that the cheapest one is unique."""
    names = [
        (name, category)
        for catalogue in (CATALOGUE, HELD_OUT_CATALOGUE)
        for category, text in catalogue.items()
        for name in words.listed(text)
    ]
    euros = rng.sample(range(2, 400), len(names))
    return [
        (name, category, price + rng.choice((0.0, 0.5, 0.95)), _stock(rng))
        for (name, category), price in zip(names, euros, strict=True)
    ]


def _stock(rng: random.Random) -> int:
    return rng.choice((0, rng.randint(1, 9), rng.randint(10, 300)))


def _orders(rng: random.Random, num_customers: int, num_products: int) -> Rows:
    """Return orders on distinct days, so that the latest order is unique."""
    days = sorted(rng.sample(range((LAST_DAY - FIRST_DAY).days + 1), NUM_ORDERS))
    return [
        (
            1 + int(num_customers * rng.random() ** 1.5),
            1 + rng.randrange(num_products),
            rng.randint(1, 40),
            str(FIRST_DAY + timedelta(days=day)),
        )
        for day in days
    ]
