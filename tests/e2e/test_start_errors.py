"""Processes that can't start exit with one line that names the reason."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from served_tiny import BASE, TinyModels
from servers import start_lorikeet

from ops.local.embedded_redis import start_redis

END_TIMEOUT_S = 150.0
QUICKLY_S = 60.0
SHAPE = "layers.0.self_attn.q_proj.lora_A.weight"
WRONG_FILES: dict[str, tuple[list[str], list[str]]] = {
    "truncated adapter": (["--adapters", "TRUNCATED"], ["truncated", "adapter_model.safetensors"]),
    "no such adapter": (["--adapters", "lost=/no/adapter"], ["lost", "/no/adapter"]),
    "two bad adapters": (
        ["--adapters", "lost=/no/adapter", "good=NARROW", "short=TRUNCATED"],
        ["2 of 3 adapters can't be served", "adapter lost from", "adapter short from"],
    ),
    "no such model": (["--model", "./nothing"], ["--model ./nothing: this folder doesn't exist"]),
    "no model": (["--model", "NARROW"], ["this is a LoRA adapter; name it in --adapters"]),
    "no such root": (["--adapter-root", "/no/root"], ["--adapter-root: '/no/root' isn't a folder"]),
}
"""Errors in the files that the flags name: flags, and parts of the message."""
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
    return words if "--model" in words else [*words, "--model", str(folders["MODEL"])]


@pytest.mark.slow
def test_a_worker_reads_all_adapters_and_names_those_that_do_not_fit_the_model(
    folders: dict[str, Path], redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # A small cache, because a full one takes as long to allocate as torch takes to import.
    flags = ["--adapters", "a=WRONG_SHAPES", "b=NARROW", "c=WRONG_SHAPES", "--kv-cache-mb", "16"]
    assert exit_code(worker_words(flags, folders, redis_url), log) == 2, log.read_text()
    printed = log.read_text()
    assert "lorikeet: 2 of 3 adapters can't be served" in printed
    for line, name in zip(printed.splitlines()[-2:], "ac", strict=True):
        assert line.startswith(f"  adapter {name} from ")
        assert all(part in line for part in (SHAPE, "shape [3, 65]", "[3, 64]"))


@pytest.mark.parametrize(
    ("command", "name"), [("worker", "two bad adapters"), *(("up", name) for name in WRONG_FILES)]
)
def test_wrong_files_are_named_before_anything_is_started(
    folders: dict[str, Path], redis_url: str, tmp_path: Path, command: str, name: str
) -> None:
    flags, parts = WRONG_FILES[name]
    words = [command, *worker_words(flags, folders, redis_url)[1:]]
    words += ["--port", "0"] if command == "up" else []
    log = tmp_path / "log"
    assert exit_code(words, log) == 2, log.read_text()
    printed = log.read_text()
    assert printed.startswith("lorikeet: ")
    assert "Traceback" not in printed
    for part in fill_in(parts, folders):
        assert part in printed


def test_a_device_that_torch_cannot_use_is_named_before_anything_is_started(
    folders: dict[str, Path], redis_url: str, tmp_path: Path
) -> None:
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this torch may use GPUs")
    words = ["up", "--model", str(folders["MODEL"]), "--redis-url", redis_url, "--device", "cuda"]
    assert exit_code([*words, "--port", "0"], tmp_path / "log") == 2
    assert "--device cuda:0: this torch is built for CPUs alone" in the_only_line(tmp_path / "log")


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[str]:
    """Host and port of a Redis that wants a password."""
    server = start_redis(None)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"CONFIG SET requirepass sesame\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    yield f"127.0.0.1:{server.port}"
    server.stop()


@pytest.mark.parametrize(
    "words",
    [
        *(["api", "--port", "0"], ["worker", "m"], ["control"], ["up", "m", "--port", "0"]),
        *(["queue"], ["audit"], ["jobs", "dead"], ["health", "worker"]),
    ],
    ids=" ".join,
)
def test_a_redis_that_wants_a_password_is_named(
    locked_redis: str, tmp_path: Path, words: list[str]
) -> None:
    log = tmp_path / "log"
    assert exit_code([*words, "--redis-url", f"redis://{locked_redis}/0"], log) == 1
    line = the_only_line(log)
    assert f"the Redis at {locked_redis} needs a password: set LORIKEET_REDIS_URL" in line


@pytest.mark.parametrize("command", ["worker", "up"])
def test_a_cache_folder_that_cannot_be_written_is_named(
    redis_url: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    log, cache = tmp_path / "log", tmp_path / "file" / "cache"
    words = [command, "demo", "--redis-url", redis_url]
    words += ["--port", "0"] if command == "up" else []
    assert exit_code(words, log, XDG_CACHE_HOME=str(cache)) == 2, log.read_text()
    line = the_only_line(log)
    assert f"{cache}/lorikeet can't be written (Not a directory)" in line
    assert "set XDG_CACHE_HOME to another folder" in line


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_disk_that_is_full_during_the_conversion_of_the_demo_is_named(tmp_path: Path) -> None:
    # A limit on the size of files fails in the same calls as a full disk.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20)); "
        "from ops.demo.model import demo_model; demo_model()"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    message = f"SettingsError: the disk of {tmp_path}/lorikeet is full (File too large)"
    assert message in done.stderr
    assert not list((tmp_path / "lorikeet").glob("*/converting-*"))


def exit_code(words: Sequence[str], log: Path, **variables: str) -> int:
    process = start_lorikeet(words, log, **variables)
    try:
        return process.wait(END_TIMEOUT_S)
    finally:
        process.kill()


def the_only_line(log: Path) -> str:
    """Return the only printed line, which `lorikeet` wrote."""
    [line] = log.read_text().splitlines()
    assert line.startswith("lorikeet: ")
    return line
