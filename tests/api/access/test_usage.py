"""GET /v1/usage: the ledger, as JSON and CSV, for a tenant and for administrators."""

import csv
import io
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
from api_support import USAGE, ScriptedWorker, error_of, paged
from hypothesis import given
from hypothesis import strategies as st
from key_support import bearer, new_key
from raw_client import BODY, CHAT
from starlette.datastructures import QueryParams

from api.access.usage_query import Group, read_usage_query
from api.access.usage_rows import UsageRow
from shared.errors import JobFailed
from shared.protocol.access.rights import Scope
from shared.store.access.key_store import KeyStore
from shared.store.access.ledger import Ledger, Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

URL = "/v1/usage"
EPOCH = date(1970, 1, 1)


@pytest.fixture
async def today(redis: Redis, keys: Keys) -> date:
    return await Ledger(redis, keys).today()


@pytest.fixture
async def filled(redis: Redis, keys: Keys, today: date) -> None:
    """Enter three days of two tenants, each with models `a`, `b` and `c d`."""
    for number in range(3):
        day = (today - timedelta(days=number) - EPOCH).days
        for tenant in ("red", "blue"):
            await redis.sadd(keys.ledger_tenants(day), tenant)  # type: ignore[misc]
            rows = {"a": "1 10 5 100", "b": "2 20 5 200", "c d": "3 30 5 300"}
            await redis.hset(keys.ledger(day, tenant), mapping=rows)  # type: ignore[misc]


@pytest.fixture
async def red(store: KeyStore) -> dict[str, str]:
    return bearer((await new_key(store))[0])


@pytest.fixture
async def admin(store: KeyStore) -> dict[str, str]:
    return bearer((await new_key(store, Scope.ADMIN, tenant="boss"))[0])


async def rows_of(http: httpx.AsyncClient, headers: Any, **params: Any) -> list[dict[str, Any]]:
    reply = await http.get(URL, params=params, headers=headers)
    assert reply.status_code == 200, reply.text
    rows: list[dict[str, Any]] = reply.json()["data"]
    return rows


async def test_an_answer_appears_with_the_usage_that_its_client_got(
    http: httpx.AsyncClient, worker: ScriptedWorker, red: Any, today: date
) -> None:
    for stream in (False, True):
        await worker.serve(http.post(CHAT, json={**BODY, "stream": stream}, headers=red))
    (row,) = await rows_of(http, red, group_by="tenant,model")
    assert row == {
        "tenant": "red",
        "model": "extract",
        "requests": 2,
        "prompt_tokens": 2 * USAGE.prompt_tokens,
        "cached_tokens": 0,
        "completion_tokens": 2 * USAGE.completion_tokens,
    }


@pytest.mark.usefixtures("filled")
async def test_a_tenant_sees_its_own_usage_and_administrators_see_all(
    http: httpx.AsyncClient, red: Any, admin: Any
) -> None:
    assert {row["tenant"] for row in await rows_of(http, red)} == {"red"}
    assert {row["tenant"] for row in await rows_of(http, admin)} == {"red", "blue"}
    assert {row["tenant"] for row in await rows_of(http, admin, tenant="blue")} == {"blue"}
    denied = await http.get(URL, params={"tenant": "blue"}, headers=red)
    assert error_of(denied) == (403, "permission_denied", "tenant")


@pytest.mark.usefixtures("filled")
async def test_models_that_a_key_may_not_use_are_left_out(
    http: httpx.AsyncClient, store: KeyStore
) -> None:
    narrow, _ = await new_key(store, models=("a", "c*"))
    models = [row["model"] for row in await rows_of(http, bearer(narrow), group_by="model")]
    assert models == ["a", "c d"]


@pytest.mark.usefixtures("filled")
async def test_usage_is_summed_over_the_columns_that_are_left_out(
    http: httpx.AsyncClient, admin: Any
) -> None:
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("model", {"model": "a", "requests": 6, "completion_tokens": 600}, 3),
        ("tenant", {"tenant": "blue", "requests": 18, "cached_tokens": 45}, 2),
        ("day,tenant", {"tenant": "blue", "requests": 6, "prompt_tokens": 60}, 6),
        ("day,tenant,model", {"tenant": "blue", "model": "a", "requests": 1}, 18),
    ]
    for group_by, first, count in cases:
        rows = await rows_of(http, admin, group_by=group_by)
        assert len(rows) == count
        assert first.items() <= rows[0].items()
        assert set(group_by.split(",")) == set(rows[0]) & set(Group)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("group_by", ["day,tenant,model", "tenant,model", "model"])
async def test_pages_together_have_every_row_once(
    http: httpx.AsyncClient, admin: Any, group_by: str
) -> None:
    whole = await rows_of(http, admin, group_by=group_by)
    assert await paged(http, URL, 2, params={"group_by": group_by}, headers=admin) == whole


@pytest.mark.usefixtures("filled")
async def test_days_outside_the_range_are_left_out(
    http: httpx.AsyncClient, red: Any, today: date
) -> None:
    yesterday = (today - timedelta(days=1)).isoformat()
    rows = await rows_of(http, red, start=yesterday, end=yesterday, group_by="day")
    assert [row["day"] for row in rows] == [yesterday]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"accept": "text/csv"}])
async def test_csv_has_the_same_rows(http: httpx.AsyncClient, admin: Any, how: Any) -> None:
    headers = {**admin, **({"Accept": how["accept"]} if "accept" in how else {})}
    reply = await http.get(URL, params=how.get("params"), headers=headers)
    assert reply.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(reply.text)))
    rows = await rows_of(http, admin)
    assert read == [{name: str(value) for name, value in row.items()} for row in rows]
    assert len(read) == 18


INVALID = (
    *(("start", "2026-1-1"), ("end", "20260101"), ("start", "2026-02-30"), ("end", "x")),
    *(("group_by", "color"), ("limit", "0"), ("limit", "x"), ("format", "xml")),
    *(("after", "only-a-day"), ("color", "red"), ("start", "2999-01-01")),
)


async def test_an_invalid_parameter_is_named(http: httpx.AsyncClient, red: Any) -> None:
    for param, value in INVALID:
        reply = await http.get(URL, params={param: value}, headers=red)
        assert error_of(reply)[::2] == (400, param), value
    longer_than_400_days = {"start": "2020-01-01", "end": "2026-01-01"}
    reply = await http.get(URL, params=longer_than_400_days, headers=red)
    assert error_of(reply) == (400, "invalid_value", "start")


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(model=names, day=st.dates(), limit=st.integers(1, 10_000))
def test_the_id_of_a_row_leads_to_the_row_after_it(model: str, day: date, limit: int) -> None:
    row = UsageRow({Group.DAY: day.isoformat(), Group.TENANT: "red", Group.MODEL: model}, Used())
    params = {"after": row.id, "limit": str(limit), "end": "2026-01-01"}
    query = read_usage_query(QueryParams(params), accept="", today=date(2026, 1, 1))
    assert query.after == (day.isoformat(), "red", model)
    assert query.limit == limit


@given(text=st.text(max_size=12))
def test_any_text_is_a_day_or_refused(text: str) -> None:
    with suppress(JobFailed):
        query = read_usage_query(QueryParams({"end": text}), accept="", today=EPOCH)
        assert query.end.isoformat() == text
