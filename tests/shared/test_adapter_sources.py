"""Flags of adapters, their URLs, and templates of sources."""

from pathlib import Path

import pytest

from shared.adapter_flags import parse_adapter_flags
from shared.adapter_names import is_valid_name
from shared.adapter_sources import BadUrl, RemoteUrl, SourceTemplate, is_remote, without_query
from shared.errors import SettingsError


def test_only_four_schemes_are_urls() -> None:
    for source in ("s3://b/x", "gs://b/x", "https://h/x", "http://h/x"):
        assert is_remote(source)
    for source in ("org/repo", "/srv/s3://x", "ftp://h/x", "S3://b/x", "s3:/b", "file:///x"):
        assert not is_remote(source)


def test_a_url_has_its_parts() -> None:
    url = RemoteUrl.parse(f"https://Files.Example:8443/a/b.zip?x=1&y=2#sha256={'A' * 64}")
    assert (url.scheme, url.host, url.port) == ("https", "files.example", 8443)
    assert (url.path, url.query, url.sha256) == ("/a/b.zip", "x=1&y=2", "a" * 64)
    assert url.address == "https://files.example:8443/a/b.zip"
    assert RemoteUrl.parse("https://h/x").address == "https://h/x"
    assert RemoteUrl.parse("http://[::1]:80/x").address == "http://[::1]/x"
    assert RemoteUrl.parse("s3://My.Bucket/a/").address == "s3://My.Bucket/a"


@pytest.mark.parametrize(
    ("url", "root", "is_below"),
    [
        ("s3://bucket/a/b", "s3://bucket", True),
        ("s3://bucket/a/b", "s3://bucket/a", True),
        ("s3://bucket/a/b", "s3://bucket/a/", True),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://bucket-2/a", "s3://bucket", False),
        ("gs://bucket/a", "s3://bucket", False),
        ("https://h:443/x", "https://h", True),
        ("https://h:444/x", "https://h", False),
        ("http://h/x", "https://h", False),
    ],
)
def test_a_root_is_one_place_with_all_below_it(url: str, root: str, is_below: bool) -> None:
    assert RemoteUrl.parse(url).is_below(RemoteUrl.parse(root)) is is_below


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("HTTPS://Host_1.example./o/images%2Fcat.png?alt=media&x", "/o/images%2Fcat.png"),
        ("http://h//a/../b/", "//a/../b/"),
        ("http://h?x=%25", ""),
    ],
)
def test_the_url_of_an_image_keeps_its_path_and_query(url: str, path: str) -> None:
    parsed = RemoteUrl.of_page(url)
    assert (parsed.path, parsed.query) == (path, url.partition("?")[2])
    assert parsed.host in ("host_1.example", "h")


@pytest.mark.parametrize("url", ["s3://b/x", "file:///x", "http://", "http://h:x/", "http://a@h/"])
def test_other_urls_are_no_images(url: str) -> None:
    with pytest.raises(BadUrl):
        RemoteUrl.of_page(url)


def test_logs_show_no_query() -> None:
    assert without_query("https://h/x.zip?sig=secret#sha256=1") == "https://h/x.zip#sha256=1"
    assert without_query("/srv/odd?name") == "/srv/odd?name"


@pytest.mark.parametrize(
    "text",
    [
        *("s3://bucket", "s3://bucket/{names}", "s3://bucket/{name}/{name}", "s3://{name}/x"),
        *("https://{name}/x", "{name}", "./{name}", "https://h/../{name}", "https://h/{name}{"),
        *("https://h/x?n={name}", f"https://h/{{name}}#sha256={'0' * 64}", "ftp://h/{name}"),
    ],
)
def test_texts_that_are_no_templates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must have|is neither|can't have|its path|isn't|usable"):
        SourceTemplate(text)


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("s3://bucket/{name}", "sql", "s3://bucket/sql"),
        ("s3://bucket/{name}", "team/sql", "s3://bucket/team/sql"),
        ("s3://bucket/a-{name}.tar.gz", "sql", "s3://bucket/a-sql.tar.gz"),
        ("https://h/{name}.zip?token=1", "sql", "https://h/sql.zip?token=1"),
        ("/adapters/{name}", "sql", "/adapters/sql"),
        ("acme/{name}-lora@main", "sql", "acme/sql-lora@main"),
        ("acme/{name}", "team/sql", None),
        *(
            ("s3://bucket/{name}", name, None)
            for name in (
                *("..", "../x", "a/../b", "a/..", "/etc", "a//b", "a/./b", ".", "a/", ""),
                *("%2e%2e", "a%2fb", "a\\b", "a b", "a?b", "a#b", "a@b", "a:b", "s3://x", "a\0b"),
                *("a\n", "{name}", "x" * 129, "\u0661"),
            )
        ),
    ],
)
def test_a_name_makes_a_source_below_the_template_or_none(
    text: str, name: str, source: str | None
) -> None:
    template = SourceTemplate(text)
    assert template.source_of(name) == source
    assert source is None or template.makes(source)


def test_a_template_makes_no_source_of_another_place() -> None:
    template = SourceTemplate("s3://bucket/a/{name}.zip")
    for source in (
        *("s3://bucket/a/.zip", "s3://bucket/a/../x.zip", "s3://bucket/b/x.zip", "s3://bucket/a/x"),
        *("s3://bucket/a/%2e%2e/x.zip", "s3://bucket/a/x.zip?y", "s3://other/a/x.zip", "", ".zip"),
    ):
        assert not template.makes(source), source


@pytest.mark.parametrize(
    ("flags", "sources"),
    [
        (["sql=/data/a", "chat=org/repo"], {"sql": "/data/a", "chat": "org/repo"}),
        (["a=/data/r=8"], {"a": "/data/r=8"}),
        *(
            ([source], {"pirate": source})
            for source in ("/data/pirate", "/data/pirate/", "org/pirate", "pirate")
        ),
    ],
)
def test_a_source_is_named_before_the_first_equals_sign_or_by_its_last_part(
    flags: list[str], sources: dict[str, str]
) -> None:
    assert list(parse_adapter_flags(flags).items()) == list(sources.items())


def test_the_bare_current_folder_is_named_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sql").mkdir()
    monkeypatch.chdir(tmp_path / "sql")
    assert parse_adapter_flags(["."]) == {"sql": str(tmp_path.resolve() / "sql")}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a=/x", "a=/y"], "--adapters 'a=/y': the name 'a' is given twice"),
        (["/data/a", "a=/y"], "given twice"),
        (["a="], "no folder or hub id"),
        (["=/x"], "invalid adapter name ''"),
        (["../x=/x"], "invalid adapter name"),
        (["a..b=/x"], "invalid adapter name"),
        (["/data/my adapter"], "invalid adapter name 'my adapter'"),
        ([""], "invalid adapter name|no folder"),
    ],
)
def test_bad_flags_stop_the_start_by_name(flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_adapter_flags(flags)


def test_names_are_words_of_ascii_with_slashes() -> None:
    for name in ("a", "org/repo", "v1.2_x-y", "0", "a" * 128):
        assert is_valid_name(name), name
    for name in ("", "-a", ".a", "/a", "a@b", "a b", "a:b", "a\n", "é", "a/../b", "a" * 129):
        assert not is_valid_name(name), name
