"""Processes that can't start exit with one message that names the reason.

tests/ops/test_cli.py has the errors of settings, and tests/worker/startup/test_check_files.py those
of files.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from served_tiny import BASE, TinyModels
from servers import start_lorikeet

END_TIMEOUT_S = 150.0
SHAPE = "layers.0.self_attn.q_proj.lora_A.weight"


def exit_code(words: Sequence[str], log: Path, **variables: str) -> int:
    process = start_lorikeet(words, log, **variables)
    try:
        return process.wait(END_TIMEOUT_S)
    finally:
        process.kill()


@pytest.mark.slow
def test_a_worker_reads_all_adapters_and_names_those_that_do_not_fit_the_model(
    models: TinyModels, redis_url: str, tmp_path: Path
) -> None:
    good, bad, log = models.folder / "narrow", tmp_path / "shapes", tmp_path / "log"
    weights = shutil.copytree(good, bad) / "adapter_model.safetensors"
    tensors = load_file(weights)
    [name] = [name for name in tensors if name.endswith(SHAPE)]
    save_file({**tensors, name: tensors[name].new_zeros(3, 65)}, weights)
    words = ["worker", str(models.folder / BASE), "--redis-url", redis_url]
    # A small cache, because a full one takes as long to allocate as torch takes to import.
    words += ["--kv-cache-mb", "16", "--adapters", f"a={bad}", f"b={good}", f"c={bad}"]
    assert exit_code(words, log) == 2, log.read_text()
    printed = log.read_text()
    assert "lorikeet: 2 of 3 adapters can't be served" in printed
    for line, name in zip(printed.splitlines()[-2:], "ac", strict=True):
        assert line.startswith(f"  adapter {name} from ")
        assert all(part in line for part in (SHAPE, "shape [3, 65]", "[3, 64]"))


@pytest.mark.parametrize("command", ["worker", "up"])
def test_wrong_files_are_named_before_anything_is_started(
    models: TinyModels, redis_url: str, tmp_path: Path, command: str
) -> None:
    good, short, log = models.folder / "narrow", tmp_path / "short", tmp_path / "log"
    weights = shutil.copytree(good, short) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    words = [command, str(models.folder / BASE), "--redis-url", redis_url]
    words += ["--adapters", "lost=/no/adapter", f"good={good}", f"short={short}"]
    words += ["--port", "0"] if command == "up" else []
    assert exit_code(words, log) == 2, log.read_text()
    printed = log.read_text()
    assert printed.startswith("lorikeet: 2 of 3 adapters can't be served")
    assert "Traceback" not in printed
    for part in ("adapter lost from /no/adapter", "adapter short from", "truncated"):
        assert part in printed


def test_a_cache_folder_that_cannot_be_written_is_named(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log, cache = tmp_path / "log", tmp_path / "file" / "cache"
    words = ["up", "demo", "--redis-url", redis_url, "--port", "0"]
    assert exit_code(words, log, XDG_CACHE_HOME=str(cache)) == 2, log.read_text()
    [line] = log.read_text().splitlines()
    assert line.startswith("lorikeet: ")
    assert f"{cache}/lorikeet can't be written (Not a directory)" in line
    assert "set XDG_CACHE_HOME to another folder" in line
