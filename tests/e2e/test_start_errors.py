"""Processes that can't start exit with one line that names the reason."""

import json
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from served_tiny import BASE, TinyModels
from servers import start_lorikeet

END_TIMEOUT_S = 60.0
QUICKLY_S = 15.0
SHAPE = "layers.0.self_attn.q_proj.lora_A.weight"
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "wrong shapes": (["--adapters", "bad=WRONG_SHAPES"], [SHAPE, "shape [3, 65]", "[3, 64]"]),
    "truncated adapter": (["--adapters", "TRUNCATED"], ["truncated", "adapter_model.safetensors"]),
    "no such adapter": (["--adapters", "lost=/no/adapter"], ["lost", "/no/adapter"]),
}
"""Errors that only a worker can find: flags, and parts of the message."""
WRONG: dict[str, tuple[list[str], list[str]]] = {
    "duplicate names": (["--adapters", "a=NARROW", "a=TRUNCATED"], ["'a' is given twice"]),
    "bad name": (["--adapters", "a b=NARROW"], ["invalid adapter name 'a b'"]),
    "low limit": (["--max-num-seqs", "0"], ["--max-num-seqs", "greater than or equal to 1"]),
    "bad pool": (["--pool", "a/b"], ["--pool", "a/b"]),
    "no Redis URL": (["--redis-url", "localhost:6379"], ["--redis-url", "redis://"]),
}
"""Errors in the flags themselves."""
BASES: dict[str, tuple[dict[str, object], list[str]]] = {
    "quantised": (
        {"model_type": "llama", "quantization_config": {"quant_method": "awq"}},
        ["is quantised with AWQ", "use --engine vllm"],
    ),
    "attention": ({"model_type": "llama4_text"}, ["use chunked_attention", "use --engine vllm"]),
}
"""Base models that the native engine can't serve: config.json, and parts of the message."""
MALFORMED: dict[str, tuple[list[str], str]] = {
    "no number": (["worker", "--kv-cache-mb", "much"], "--kv-cache-mb"),
    "no choice": (["worker", "--dtype", "int4"], "--dtype"),
    "no flag": (["api", "--prot", "80"], "--prot"),
    "no command": (["serve"], "serve"),
}


@pytest.fixture(scope="module")
def folders(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders that the words in capitals stand for."""
    root = tmp_path_factory.mktemp("broken")
    narrow = models.folder / "narrow"
    shapes = shutil.copytree(narrow, root / "shapes") / "adapter_model.safetensors"
    tensors = load_file(shapes)
    [name] = [name for name in tensors if name.endswith(SHAPE)]
    save_file({**tensors, name: tensors[name].new_zeros(3, 65)}, shapes)
    weights = shutil.copytree(narrow, root / "truncated") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return {
        "WRONG_SHAPES": root / "shapes",
        "TRUNCATED": root / "truncated",
        "NARROW": narrow,
        "MODEL": models.folder / BASE,
    }


def fill_in(words: Sequence[str], folders: Mapping[str, Path]) -> list[str]:
    filled = list(words)
    for name, folder in folders.items():
        filled = [word.replace(name, str(folder)) for word in filled]
    return filled


def worker_words(flags: Sequence[str], folders: Mapping[str, Path], redis_url: str) -> list[str]:
    """Return a worker's command line with all required flags."""
    words = ["worker", *fill_in(flags, folders)]
    if "--redis-url" not in words:
        words += ["--redis-url", redis_url]
    return [*words, "--model", str(folders["MODEL"])]


@pytest.mark.parametrize("name", REFUSED)
def test_a_worker_that_can_never_serve_names_the_reason_and_ends_with_code_2(
    folders: dict[str, Path], redis_url: str, tmp_path: Path, name: str
) -> None:
    flags, parts = REFUSED[name]
    log = tmp_path / "log"
    # A small cache, because a full one takes as long to allocate as torch takes to import.
    words = worker_words([*flags, "--kv-cache-mb", "16"], folders, redis_url)
    assert exit_code(words, log) == 2, log.read_text()
    line = the_only_line(log)
    for part in fill_in(parts, folders):
        assert part in line


@pytest.mark.parametrize("name", BASES)
def test_a_base_that_the_engine_cannot_serve_ends_with_code_2(
    redis_url: str, tmp_path: Path, name: str
) -> None:
    fields, parts = BASES[name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    log = tmp_path / "log"
    words = ["worker", "--redis-url", redis_url, "--model", str(tmp_path)]
    assert exit_code(words, log) == 2, log.read_text()
    line = the_only_line(log)
    for part in [f"--model {tmp_path}", *parts]:
        assert part in line


@pytest.mark.parametrize("name", WRONG)
def test_invalid_flags_are_named_before_anything_is_loaded(
    folders: dict[str, Path], redis_url: str, tmp_path: Path, name: str
) -> None:
    flags, parts = WRONG[name]
    log = tmp_path / "log"
    assert exit_code(worker_words(flags, folders, redis_url), log) == 2, log.read_text()
    line = the_only_line(log)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_command_line_ends_with_code_2(tmp_path: Path, name: str) -> None:
    words, part = MALFORMED[name]
    log = tmp_path / "log"
    assert exit_code(words, log) == 2
    assert part in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("command", ["api", "worker", "up"])
def test_without_redis_nothing_starts(models: TinyModels, tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
    words = [command, "--redis-url", url]
    words += ["--port", "0"] if command != "worker" else []
    words += models.flags if command != "api" else []
    started_s, log = time.monotonic(), tmp_path / "log"
    assert exit_code(words, log) == 1, log.read_text()
    assert time.monotonic() - started_s < QUICKLY_S
    assert f"no Redis at {url}" in the_only_line(log)


def exit_code(words: Sequence[str], log: Path) -> int:
    process = start_lorikeet(words, log)
    try:
        return process.wait(END_TIMEOUT_S)
    finally:
        process.kill()


def the_only_line(log: Path) -> str:
    """Return the only printed line, which `lorikeet` wrote."""
    [line] = log.read_text().splitlines()
    assert line.startswith("lorikeet: ")
    return line
