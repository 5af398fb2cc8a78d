"""`lorikeet adapters` against a real front end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from adapter_readers import finds, reading
from api_support import ADAPTER, BASE, RunningApp, register_models, running_app
from command_line import lorikeet
from pydantic import SecretStr

from ops.adapter_list import print_list
from ops.commands.clients.adapter_versions import print_promoted
from ops.commands.clients.adapters import absolute_source
from ops.server_client import ServerError
from shared.errors import AdapterRejected, ErrorCode, JobError, SettingsError
from shared.protocol.ids import AdapterVersion
from shared.settings import ApiSettings
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]
KEY = "0123456789abcdef"
RELOADED = "/adapters/x"
"""Source of every adapter that the reading worker loads."""
READY = {
    "version": "a@1",
    "state": "ready",
    "source": "/a",
    "rank": 4,
    "bytes": 2**20,
    "requests": 0,
    "last_used_ms": None,
    "workers": [],
    "created": 10,
}
"""A version as the server describes it."""


@pytest.fixture
def settings(redis_url: str, pool: str) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, pool=pool)


@pytest.fixture
async def app(settings: ApiSettings, redis: Redis, keys: Keys) -> AsyncIterator[RunningApp]:
    """Start a front end with two models, and a worker that can read any adapter."""
    await register_models(Registry(redis, keys))

    def find(asked: Inspection) -> Findings:
        if "bad" not in asked.source:
            return finds(asked)
        error = JobError(code=ErrorCode.ADAPTER_REJECTED, message="tensor x belongs to no module")
        return Findings(error=error, source="/x", num_tensors=2, num_unmatched=1, unmatched=("x",))

    async with reading(redis, keys) as start, running_app(settings) as app:
        await start(find=find)
        yield app


async def invoke(*words: str) -> str:
    return await asyncio.to_thread(lorikeet, "adapters", *words)


@pytest.fixture
def run(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet adapters WORDS` and returns its output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_URL", app.url)
    monkeypatch.delenv("LORIKEET_API_KEYS", raising=False)
    return invoke


def rows(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines() if "@" in line]


async def test_adapters_are_listed_with_their_versions(run: Run) -> None:
    assert rows(await run()) == [
        ["extract", ADAPTER.version, "ready", "8", "0.0", "0", "-", "1", "/adapters/extract-v1"]
    ]
    await run("load", "extract", "/adapters/2", "--replace")
    assert [row[:2] for row in rows(await run())] == [
        ["extract", "extract@222222222222"],
        [ADAPTER.version, "previous,"],
    ]
    await run("load", "extract", "/adapters/3", "--replace")
    assert [" ".join(row[:4]) for row in rows(await run())[1:]] == [
        "extract@222222222222 previous, next rollback",
        f"{ADAPTER.version} previous 8 0.0",
    ]


@pytest.mark.parametrize("columns", [60, 80])
async def test_a_narrow_terminal_shows_a_paragraph_for_each_version(
    run: Run, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = f"customers/{'support-' * 8}v2"
    long = replace(
        ADAPTER,
        name=name,
        version=AdapterVersion(f"{name}@333333333333"),
        source=f"/adapters{'/folder' * 12}/3",
    )
    await Registry(redis, keys).add_adapter(long)
    await run("load", "extract", "/adapters/2", "--replace")
    lines = (await run()).splitlines()
    start = lines.index("extract")
    shown = [line for line in lines[start + 1 :] if "@" in line or line.startswith("    /")]
    assert shown[:4] == [
        *("  extract@222222222222", f"    {RELOADED}", f"  {ADAPTER.version}"),
        f"    {ADAPTER.source}",
    ]
    sentence = "ready, on 0 workers, rank 8, 0.0 MiB, requests: 0, not used yet"
    assert sentence in " ".join(" ".join(lines[start:]).split())
    for whole in (name, f"  {long.version}", f"    {long.source}"):
        assert whole in lines
    words = [line for line in lines if "@" not in line and "/" not in line]
    assert max(map(len, words)) <= columns


async def test_a_candidate_and_a_pin_are_listed(run: Run) -> None:
    await run("canary", "extract", "/adapters/2", "--percent", "12.5")
    await run("pin", "extract", "--replicas", "2")
    (current, candidate) = rows(await run())
    assert current[:5] == ["extract", ADAPTER.version, "ready,", "pinned", "to"]
    assert candidate[:4] == ["extract@222222222222", "canary", "12.5", "%"]
    await run("promote", "extract")
    await run("canary", "extract", "--version", ADAPTER.version, "--percent", "10")
    (_, candidate) = rows(await run())
    assert candidate[:2] == [ADAPTER.version, "canary"], "it isn't listed as previous, too"


@pytest.mark.parametrize(
    ("created", "state"),
    [(9, "previous, next rollback"), (10, "previous, next rollback"), (11, "next rollback")],
)
def test_a_newer_version_that_the_next_rollback_restores_is_not_listed_as_previous(
    capsys: pytest.CaptureFixture[str], created: int, state: str
) -> None:
    after = {**READY, "version": "a@2", "created": created}
    print_list({"data": [{**READY, "id": "a", "previous": [after]}], "draining": []})
    shown = " ".join(capsys.readouterr().out.split())
    assert f"a@2 {state}, on 0 workers" in shown


def test_a_quarantined_candidate_and_a_server_of_an_earlier_release_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = {**READY, "id": "b", "previous": []}
    trial = {**READY, "version": "a@2", "state": "quarantined", "mode": "canary", "percent": 5.0}
    adapter = {**earlier, "id": "a", "min_replicas": 2, "candidate": trial}
    print_list({"data": [adapter, earlier], "draining": []})
    shown = " ".join(capsys.readouterr().out.split())
    assert "canary quarantined, on 0 workers" in shown
    assert "ready, pinned to 2, on 0 workers" in shown
    assert "ready, on 0 workers" in shown


async def test_one_adapter_is_shown_and_the_list_has_other_names(run: Run) -> None:
    await run("load", "sql", "/a/1")
    listed = await run()
    assert await run("list") == listed
    assert await run("ls") == listed
    assert [row[0] for row in rows(await run("show", "sql"))] == ["sql"]
    with pytest.raises(ServerError, match="The model 'other' does not exist"):
        await run("show", "other")


async def test_an_adapter_of_another_base_is_marked(
    run: Run, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = replace(
        ADAPTER,
        name="stranger",
        version=AdapterVersion("stranger@333333333333"),
        other_base="org/other-3b",
    )
    await Registry(redis, keys).add_adapter(stranger)
    warning = "trained on org/other-3b, another base model with the same shapes"
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert " ".join((await run()).split()).count(warning) == 1
        assert warning in " ".join((await run("show", "stranger")).split())
        assert warning not in await run("show", "extract")


async def test_the_log_fits_a_terminal_of_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    await run("load", "extract", "/adapters/2", "--replace")
    lines = (await run("log")).splitlines()
    shown = next(line for line in lines if "extract loaded" in line)
    assert shown.split()[-2:] == ["1" * 12, "2" * 12]
    assert max(map(len, lines)) <= 80


async def test_a_push_to_a_name_in_use_is_refused_before_it_reads_or_prints_anything(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = f"extract is in use, by {ADAPTER.version}; give --replace, or --canary N"
    with pytest.raises(ServerError, match=taken):
        await run("push", "extract", "/nowhere")
    assert "sending" not in "".join(capsys.readouterr())
    for words in (("new",), ("extract", "--replace"), ("extract", "--canary", "5")):
        with pytest.raises(SettingsError, match="/nowhere"):
            await run("push", *words, "/nowhere")


async def test_an_adapter_is_loaded_replaced_rolled_back_and_unloaded(run: Run) -> None:
    assert await run("load", "org/sql", "/a/1") == (
        "loaded org/sql as org/sql@111111111111: rank 8, 0.0 MiB\n"
    )
    taken = r"already been loaded.*, give --replace\. .* version is org/sql@111111111111"
    with pytest.raises(ServerError, match=taken):
        await run("load", "org/sql", "/a/2")
    await run("load", "org/sql", "/a/2", "--replace")
    for now, left in ("12", "21", "12"):
        assert (await run("rollback", "org/sql")).splitlines() == [
            f"org/sql is org/sql@{now * 12} again, instead of org/sql@{left * 12}",
            f"another rollback restores org/sql@{left * 12}",
        ]
    assert "org/sql is unloaded" in await run("unload", "org/sql")
    assert [row[:2] for row in rows(await run())] == [
        ["extract", ADAPTER.version],
        ["org/sql@111111111111", "draining"],
        ["org/sql@222222222222", "draining"],
    ]
    with pytest.raises(ServerError, match="The model 'org/sql' does not exist"):
        await run("rollback", "org/sql")


async def test_a_rollback_restores_the_given_version(run: Run) -> None:
    for number in (1, 2, 3):
        await run("load", "org/sql", f"/a/{number}", "--replace")
    wanted = "org/sql@111111111111"
    for outcome in (f"{wanted} again, instead of org/sql@333333333333", f"{wanted} already"):
        shown = await run("rollback", "org/sql", "--to", wanted)
        assert shown.splitlines()[0] == f"org/sql is {outcome}"
    kept = rf"choose one of: {wanted} \(current\), org/sql@333333333333, org/sql@222222222222"
    with pytest.raises(ServerError, match=f"org/sql keeps no version sql@1; {kept}"):
        await run("rollback", "org/sql", "--to", "sql@1")
    with pytest.raises(ServerError, match="version: must have at least 1 character"):
        await run("rollback", "org/sql", "--to", "")
    for unknown in ("org/sql@1&x=1", "\udcff"):  # the second is a byte that isn't UTF-8
        with pytest.raises(ServerError, match="org/sql keeps no version"):
            await run("rollback", "org/sql", "--to", unknown)


async def test_a_quarantined_adapter_is_released(run: Run, redis: Redis, keys: Keys) -> None:
    with pytest.raises(ServerError, match=f"{ADAPTER.version} isn't quarantined"):
        await run("release", "extract")
    with pytest.raises(ServerError, match="The model 'other' does not exist"):
        await run("release", "other")
    await redis.hset(keys.version(ADAPTER.version), "state", "quarantined")  # type: ignore[misc]
    assert rows(await run())[0][2] == "quarantined"
    assert await run("release", "extract") == (
        f"{ADAPTER.version} is released and takes requests again\n"
    )
    assert rows(await run())[0][2] == "ready"


async def test_the_empty_list_says_how_to_load_an_adapter(
    run: Run, redis: Redis, keys: Keys
) -> None:
    await run("unload", "extract")
    assert await Registry(redis, keys).forget_unused() == [ADAPTER.version]
    assert await run() == "no adapter is loaded; `lorikeet adapters load NAME PATH` loads one\n"


async def test_an_adapter_that_fits_is_described_and_another_one_refused_with_the_reason(
    run: Run,
) -> None:
    shown = await run("validate", "/a/4")
    for word in ("/a/4", f"yes, base model {BASE.version}", "org/base", "4" * 64, "8 (3 modules)"):
        assert word in shown
    assert "3, of which 0 match" in shown
    with pytest.raises(AdapterRejected, match="tensor x belongs to no module"):
        await run("validate", "/a/bad")
    with pytest.raises(ServerError, match="tensor x belongs to no module"):
        await run("load", "sql", "/a/bad")


async def test_a_relative_path_is_sent_as_an_absolute_one_and_a_url_as_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "local").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for source in ("s3://bucket/sql", "https://h/x.zip?a=b", "org/repo@v2"):
        assert absolute_source(source) == source
    for given, sent in (
        ("4", f"{tmp_path}/4"),
        ("./x/../4", f"{tmp_path}/4"),
        ("a/b/4", f"{tmp_path}/a/b/4"),
        ("org/local", f"{tmp_path}/org/local"),
        ("org/hub-4", "org/hub-4"),
        ("/a/4", "/a/4"),
        ("~/4", f"{Path.home()}/4"),
    ):
        assert (await run("validate", given)).split()[:2] == ["files", sent]


async def test_the_admins_key_is_sent_if_there_are_several(
    app: RunningApp, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"red:{KEY}red", f"admin:{KEY}admin")
    keyed = settings.model_copy(update={"api_keys": tuple(map(SecretStr, words))})
    async with running_app(keyed) as guarded:
        monkeypatch.setenv("LORIKEET_API_KEYS", " ".join(words))
        assert "extract" in await invoke("--url", guarded.url)
        monkeypatch.setenv("LORIKEET_API_KEYS", words[0])
        with pytest.raises(ServerError, match="needs a key with the scope adapters"):
            await invoke("unload", "extract", "--url", guarded.url)
        admin = "--url", guarded.url, "--api-key", words[1]
        assert "extract" in await invoke(*admin)
        with pytest.raises(ServerError, match="no previous version"):
            await invoke(*admin, "rollback", "extract")


async def test_a_canary_and_its_promotion_name_the_next_commands(run: Run) -> None:
    new = "extract@222222222222"
    assert (await run("canary", "extract", "/adapters/2", "--percent", "5")).splitlines() == [
        f"{new} is a canary for 5 % of the requests",
        "`lorikeet adapters candidate extract` compares it with the current version",
        "`lorikeet adapters promote extract` lets it answer all requests",
        "`lorikeet adapters drop extract` ends the trial",
    ]
    assert (await run("promote", "extract")).splitlines() == [
        f"extract is {new} now, instead of {ADAPTER.version}",
        f"`lorikeet adapters rollback extract` restores {ADAPTER.version}",
    ]


def test_without_kept_versions_a_promotion_names_no_rollback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_promoted({"id": "a", "version": "a@2", "previous": []})
    assert capsys.readouterr().out == "a is a@2 now\n"


async def test_a_candidate_is_compared_with_the_current_version(
    run: Run, redis: Redis, keys: Keys
) -> None:
    await run("canary", "extract", "/adapters/2")
    counts = {"requests": 12, "failed": 3, "answered": 9, "answer_ms": 13_500, "tokens": 4_321}
    await redis.hset(keys.version(AdapterVersion("extract@222222222222")), mapping=counts)  # type: ignore[misc]
    shown = rows(await run("candidate", "extract"))
    assert shown[1:] == [
        ["extract@222222222222", "12", "3", "1.50", "s", "4,321"],
        [ADAPTER.version, "0", "0", "-", "0"],
    ]
