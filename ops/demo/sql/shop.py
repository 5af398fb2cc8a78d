"""In-memory SQLite database of a shop. The `sql` adapter answers questions about this shop."""

import random
import sqlite3
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from typing import Any

from ops.demo import words
from ops.demo.words import lists

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
"""Maximum number of SQLite instructions that a query may execute, in thousands.

Right answers need far fewer.
"""

KNOWN, HELD_OUT = lists("shop")["known"], lists("shop")["held_out"]
"""Data for training, and data only for evaluation: places with countries, and goods by category."""

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
        *_customers(rng, words.KNOWN, KNOWN["places"]),
        *_customers(rng, words.HELD_OUT, HELD_OUT["places"]),
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


def _customers(rng: random.Random, names: words.Words, places: Mapping[str, str]) -> Rows:
    firsts, lasts = (rng.sample(n, NUM_CUSTOMERS) for n in (names.first_names, names.last_names))
    cities = [rng.choice(list(places)) for _ in range(NUM_CUSTOMERS)]
    full = (f"{one} {other}" for one, other in zip(firsts, lasts, strict=True))
    return [(name, city, places[city]) for name, city in zip(full, cities, strict=True)]


def _products(rng: random.Random) -> Rows:
    """Return products with distinct prices, so that the cheapest one is unique."""
    products = [
        (name, category)
        for sold in (KNOWN, HELD_OUT)
        for category, names in sold["catalogue"].items()
        for name in names
    ]
    euros = rng.sample(range(2, 400), len(products))
    return [
        (
            *product,
            price + rng.choice((0.0, 0.5, 0.95)),
            rng.choice((0, rng.randint(1, 9), rng.randint(10, 300))),
        )
        for product, price in zip(products, euros, strict=True)
    ]


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
