"""One process runs all tests that share a slow server."""

from pathlib import Path

from shared_servers import FOLDERS, part_of

ROOT = Path(__file__).parents[2]


def test_files_are_parts_of_their_own_unless_their_folder_shares_a_server() -> None:
    assert part_of("tests/api/test_app.py::test_a[x::y]") == "tests/api/test_app.py"
    assert part_of("tests/e2e/tiny/test_jobs.py::test_a") == "tests/e2e/tiny"


def test_each_folder_that_shares_a_server_has_a_fixture_for_it() -> None:
    for folder in FOLDERS:
        assert "-> Iterator[Server]" in (ROOT / folder / "conftest.py").read_text()
