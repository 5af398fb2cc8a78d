"""`lorikeet keys` on a real front end, and directly in Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from api_support import RunningApp, running_app
from command_line import Ended, typed

from shared.protocol.access.rights import KeyLimits, Scope
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore

Run = Callable[..., Awaitable[str]]
ALL_FLAGS = (
    *("--tenant", "red", "--scopes", "inference", "--scopes", "adapters"),
    *("--adapters", "sql-*", "--adapters", "base"),
    *("--requests-per-minute", "1", "--tokens-per-minute", "2"),
    *("--requests-per-day", "3", "--tokens-per-day", "4", "--expires-days", "5"),
)


def secret_in(output: str) -> str:
    (secret,) = (line for line in output.splitlines() if line.startswith("lk-"))
    return secret


async def keys(*words: str, stdin: str = "") -> Ended:
    return await asyncio.to_thread(typed, "keys", *words, stdin=stdin)


async def first_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Create the first key of the pool, let commands use it, and return it."""
    secret = secret_in((await keys("create", "--tenant", "ops", "--yes")).out)
    monkeypatch.setenv("LORIKEET_API_KEYS", secret)
    return secret


async def test_the_first_key_is_created_only_after_a_question_that_says_what_changes(
    on_front_end: Run, front_end: RunningApp, store: KeyStore
) -> None:
    for answer in ("", "n\n"):
        ended = await keys("create", "--tenant", "red", stdin=answer)
        assert (ended.status, ended.out) == (1, "")
        assert (
            "Once its first key exists, the pool refuses such requests with status 401" in ended.err
        )
        assert "nothing was changed" in ended.last_line
    assert await store.all() == []
    ended = await keys("create", "--tenant", "red", stdin="y\n")
    assert ended.status == 0
    assert f"pool at {front_end.url} (from LORIKEET_URL)" in ended.err
    assert ended.last_line.startswith("`lorikeet login URL` asks for the key")
    access = await store.find(secret_in(ended.out))
    assert access is not None
    assert access.scopes == set(Scope)


async def test_a_further_key_is_created_with_all_flags_or_for_every_model(
    on_front_end: Run, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first_key(monkeypatch)
    access = await store.find(secret_in(await on_front_end("keys", "create", *ALL_FLAGS)))
    assert access is not None
    assert (access.tenant, access.models) == ("red", ("sql-*", "base"))
    assert access.scopes == {Scope.INFERENCE, Scope.ADAPTERS}
    key = (await store.all())[1]
    assert key.limits == KeyLimits(
        requests_per_minute=1, tokens_per_minute=2, requests_per_day=3, tokens_per_day=4
    )
    assert key.expires_ms == key.created_ms + 5 * 86_400_000
    access = await store.find(secret_in(await on_front_end("keys", "create", "--tenant", "red")))
    assert access is not None
    assert (access.scopes, access.models) == ({Scope.INFERENCE}, ("*",))


async def test_the_list_fits_80_columns_and_has_everything_but_secrets(
    on_front_end: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await on_front_end("keys", "list") == "the pool has no stored keys\n"
    await first_key(monkeypatch)
    secret = secret_in(await on_front_end("keys", "create", *ALL_FLAGS))
    listed = await on_front_end("keys", "list")
    key_id = secret.split("-")[1]
    for word in (key_id, "red", "adapters inference", "sql-* base", "4 tokens/day", "valid until"):
        assert word in listed
    assert secret.split("-", 2)[2] not in listed
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, (await on_front_end("keys", "list")).splitlines())) <= 80


async def test_a_revoked_key_is_refused_and_the_last_administrators_is_kept(
    on_front_end: Run, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_id = (await first_key(monkeypatch)).split("-")[1]
    secret = secret_in(await on_front_end("keys", "create", "--tenant", "red"))
    key_id = secret.split("-")[1]
    assert "no key has the id 'nothing'" in (await keys("revoke", "nothing")).last_line
    assert await on_front_end("keys", "revoke", key_id) == f"{key_id}: revoked\n"
    assert await store.find(secret) is None
    assert "revoked 2" in await on_front_end("keys", "list")
    ended = await keys("revoke", own_id)
    assert ended.status == 1
    for advice in ("`lorikeet keys open`", "give --allow-lockout"):
        assert advice in ended.last_line
    assert (await keys("revoke", own_id, "--allow-lockout")).status == 0


async def test_a_pool_is_opened_again_after_a_question(
    on_front_end: Run, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first_key(monkeypatch)
    ended = await keys("open", stdin="n\n")
    assert (ended.status, "revokes 1 valid keys" in ended.err) == (1, True)
    assert await store.demanded() is True
    assert (await keys("open", "--yes")).status == 0
    assert await store.demanded() is False
    monkeypatch.delenv("LORIKEET_API_KEYS")
    assert "revoked" in await on_front_end("keys", "list")


async def test_a_first_key_without_rights_to_manage_keys_is_refused_with_the_flag(
    on_front_end: Run, store: KeyStore
) -> None:
    words = ("create", "--tenant", "red", "--scopes", "inference", "--yes")
    ended = await keys(*words)
    assert (ended.status, "give --allow-lockout" in ended.last_line) == (1, True)
    assert (await keys(*words, "--allow-lockout")).status == 0
    (key,) = await store.all()
    assert key.access.scopes == {Scope.INFERENCE}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--tenant", "a b"), "tenant"),
        (("--tenant", "a:b"), "tenant"),
        (("--tenant", "red", "--adapters", "a b"), "models"),
        (("--tenant", "red", "--scopes", "admin", "--adapters", "a"), "scope admin"),
        (("--tenant", "red", "--scopes", "metrics", "--adapters", "a"), "scope metrics"),
    ],
)
async def test_invalid_flags_store_nothing(
    on_front_end: Run, store: KeyStore, flags: tuple[str, ...], named: str
) -> None:
    ended = await keys("create", *flags, "--yes")
    assert (ended.status, ended.out, named in ended.last_line) == (1, "", True)
    assert await store.demanded() is None


async def test_an_operator_creates_the_first_key_of_a_server_that_lets_nobody_in(
    settings: ApiSettings, store: KeyStore, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    closed = settings.model_copy(update={"require_keys": True})
    in_redis = ("--redis-url", settings.redis_url, "--pool", pool)
    async with running_app(closed) as app:
        monkeypatch.setenv("LORIKEET_URL", app.url)
        assert "an API key is needed" in (await keys("create", "--tenant", "ops")).last_line
        ended = await keys("create", "--tenant", "ops", "--yes", *in_redis)
        assert f"pool {pool} in the Redis of --redis-url" in ended.err
        monkeypatch.setenv("LORIKEET_API_KEYS", secret_in(ended.out))
        assert "ops" in (await keys("list")).out
    (key,) = await store.all()
    assert key.access.scopes == set(Scope)
    assert (await keys("revoke", "nothing", *in_redis)).status == 1
    assert (await keys("revoke", key.id, *in_redis)).status == 0
    assert "revoked" in (await keys("list", *in_redis)).out
    assert (await keys("open", "--yes", *in_redis)).status == 0
    assert await store.demanded() is False
    refused = await keys("create", "--tenant", "a b", "--yes", *in_redis)
    assert (refused.status, "tenant" in refused.last_line) == (1, True)
