"""Which folders a request may name."""

from pathlib import Path

import pytest

from shared.adapter_sources import SourceTemplate
from shared.errors import ErrorCode, JobFailed, SettingsError
from worker.adapters.source.allowed_sources import AdapterRoots


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A root with a folder, a file and links; beside it a folder that isn't allowed."""
    root = tmp_path / "adapters"
    for folder in (root / "sql", root / "deep" / "er", tmp_path / "private"):
        folder.mkdir(parents=True)
    (root / "file").touch()
    (root / "out").symlink_to(tmp_path / "private")
    (root / "in").symlink_to(root / "sql")
    (root / "circle").symlink_to(root / "circle")
    return root


def code_of(roots: AdapterRoots, source: str) -> ErrorCode:
    with pytest.raises(JobFailed) as refusal:
        roots.locate(source)
    assert refusal.value.error.param == "lora_path"
    return refusal.value.error.code


def test_a_folder_under_a_root_is_allowed_by_its_full_path(adapters: Path) -> None:
    roots = AdapterRoots([str(adapters)], [])
    for given in ("sql", "deep/er", "deep/../sql", "in", "sql/", "./sql"):
        assert Path(roots.locate(f"{adapters}/{given}")).parent.is_relative_to(adapters)
    assert roots.locate(f"{adapters}/in") == str(adapters / "sql")


def test_a_relative_path_counts_from_where_the_worker_was_started(
    adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapters.parent)
    assert AdapterRoots(["adapters"], []).locate("adapters/sql") == str(adapters / "sql")
    monkeypatch.chdir(adapters)
    assert AdapterRoots(["."], []).locate("sql") == str(adapters / "sql")


def test_what_lies_outside_is_refused_be_it_there_or_not_and_no_folder_is_not_found(
    adapters: Path,
) -> None:
    roots = AdapterRoots([str(adapters)], [])
    outside = ["../private", "out", "../no-such", "sql/../../private", "circle"]
    for given in [
        *(f"{adapters}/{path}" for path in outside),
        "/",
        "",
        "/etc",
        "~",
        "~root",
        "a\0b",
    ]:
        assert code_of(roots, given) is ErrorCode.SOURCE_NOT_ALLOWED, given
    for given in ("file", "no-such", "sql/file", "x" * 300):
        assert code_of(roots, f"{adapters}/{given}") is ErrorCode.SOURCE_NOT_FOUND


def test_folders_that_cannot_be_looked_at_are_neither_roots_nor_sources(adapters: Path) -> None:
    unreadable = f"{adapters}/{'x' * 300}"  # the system refuses so long a name
    roots = AdapterRoots([], [unreadable, str(adapters / "sql")])
    assert roots.locate(str(adapters / "in")) == str(adapters / "sql")
    with pytest.raises(SettingsError, match="isn't a folder on this machine that this user can"):
        AdapterRoots([unreadable], [])


def test_a_root_that_is_a_link_stands_for_what_it_points_to(adapters: Path) -> None:
    link = adapters.parent / "link"
    link.symlink_to(adapters)
    roots = AdapterRoots([str(link)], [])
    assert roots.locate(f"{link}/sql") == roots.locate(f"{adapters}/sql") == str(adapters / "sql")


def test_by_default_only_the_neighbours_of_the_folders_at_start_are_allowed(adapters: Path) -> None:
    roots = AdapterRoots([], [str(adapters / "sql"), "org/repo"])
    assert roots.locate(str(adapters / "deep")) == str(adapters / "deep")
    for source in (str(adapters.parent / "private"), "org/other"):
        assert code_of(roots, source) is ErrorCode.SOURCE_NOT_ALLOWED
    for at_start in ([], ["org/repo"], ["/"], ["/tmp"]):
        roots = AdapterRoots([], at_start)
        assert code_of(roots, str(adapters / "sql")) is ErrorCode.SOURCE_NOT_ALLOWED


def test_hub_ids_are_allowed_by_organisation(adapters: Path) -> None:
    roots = AdapterRoots(["hub:acme"], [])
    for given in ("acme/sql-lora", "acme/sql@v2"):
        assert roots.locate(given) == given
    refused = ("other/sql-lora", "acme", "acme/a/b", "acme/..", "../acme/x", "acme2/x")
    for given in (*refused, "other/sql@v2", "acme/sql@../../x"):
        assert code_of(roots, given) is ErrorCode.SOURCE_NOT_ALLOWED, given


def test_in_the_hubs_cache_links_reach_the_blobs_of_the_same_repository_only(
    tmp_path: Path,
) -> None:
    snapshots = tmp_path / "models--acme--sql" / "snapshots"
    for name in ("1", "2"):
        (snapshots / name).mkdir(parents=True)
    assert AdapterRoots([], [str(snapshots / "1")]).locate(str(snapshots / "2"))
    fenced = AdapterRoots([str(snapshots)], [])  # links in its folders would lead out of it
    assert code_of(fenced, str(snapshots / "1")) is ErrorCode.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("roots", "reason"),
    [
        (("/no/such/folder", "hub:", "hub:a/b", "hub:..", ""), "--adapter-root"),
        (("s3://", "s3://bucket?x", "https://user@h", "https://h/../x"), "isn't a usable URL"),
    ],
)
def test_a_root_that_cannot_be_stops_the_start(roots: tuple[str, ...], reason: str) -> None:
    for root in roots:
        with pytest.raises(SettingsError, match=reason):
            AdapterRoots([root], [])


def test_urls_are_allowed_below_roots_and_by_the_template(adapters: Path) -> None:
    roots = AdapterRoots(["s3://bucket/a", str(adapters)], ["https://h/start.zip"])
    for source in ("s3://bucket/a/sql", "https://h/start.zip"):
        assert roots.locate(source) == source
    assert roots.locate(str(adapters / "sql")) == str(adapters / "sql")
    for source in ("s3://bucket/b", "https://h/other.zip", "http://h/start.zip"):
        assert code_of(roots, source) is ErrorCode.SOURCE_NOT_ALLOWED
    assert code_of(roots, "s3://bucket/a/../b") is ErrorCode.INVALID_VALUE
    assert "s3://bucket/a" in str(roots)


def test_a_template_allows_what_it_makes(adapters: Path) -> None:
    of_bucket = AdapterRoots([], [], SourceTemplate("s3://bucket/{name}.zip"))
    assert of_bucket.locate("s3://bucket/team/sql.zip") == "s3://bucket/team/sql.zip"
    for source in ("s3://bucket/sql", "s3://other/sql.zip", "org/repo", str(adapters / "sql")):
        assert code_of(of_bucket, source) is ErrorCode.SOURCE_NOT_ALLOWED
    of_hub = AdapterRoots([], [], SourceTemplate("acme/{name}-lora@v1"))
    assert of_hub.locate("acme/sql-lora@v1") == "acme/sql-lora@v1"
    for source in ("acme/sql-lora", "acme/sql", "other/sql-lora@v1"):
        assert code_of(of_hub, source) is ErrorCode.SOURCE_NOT_ALLOWED
    of_folder = AdapterRoots([], [], SourceTemplate(f"{adapters}/{{name}}"))
    assert of_folder.locate(f"{adapters}/sql") == str(adapters / "sql")
    assert code_of(of_folder, f"{adapters}/out") is ErrorCode.SOURCE_NOT_ALLOWED
    with pytest.raises(SettingsError, match="isn't a folder"):
        AdapterRoots([], [], SourceTemplate("/no/such/{name}"))
