"""`lorikeet adapters push` finds the adapter in what trainers write, and says why there is none."""

import zipfile
from pathlib import Path

import pytest

from ops.adapter_folder import adapter_in
from shared.errors import AdapterRejected, LorikeetError, SettingsError
from shared.protocol.adapter_files import CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE, is_prompt_file

ADAPTER = CONFIG_FILE, WEIGHTS_FILE
LAYOUTS = {
    "PEFT's save_pretrained": ([""], ""),
    "PEFT's second adapter": (["sql"], "sql"),
    "TRL, not ended": (["checkpoint-9", "checkpoint-10"], "checkpoint-10"),
    "Unsloth's lora_model": (["lora_model"], "lora_model"),
    "Axolotl: outputs/out, with checkpoints": (["", "checkpoint-20", "checkpoint-30"], ""),
    "TRL with a reference adapter": (["checkpoint-5", "checkpoint-5/ref"], "checkpoint-5"),
    "LLaMA-Factory: saves/MODEL/lora/sft": (
        ["m/lora/sft", "m/lora/sft/checkpoint-2"],
        "m/lora/sft",
    ),
}
OTHERS = {
    "README.md": "has no adapter_config.json, and neither have its subfolders",
    "model-00001-of-00002.safetensors": "not save_pretrained_merged",
    "model.gguf": "has a whole model, not an adapter",
    WEIGHTS_FILE: "adapter_config.json is missing",
}


def write(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    return root


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(folder.rglob("*")):
            opened.write(file, file.relative_to(folder.parent))
    return archive


@pytest.mark.parametrize(("folders", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_adapter_is_found_in_each_layout_and_in_its_archive(
    tmp_path: Path, folders: list[str], expected: str
) -> None:
    root = write(
        tmp_path / "out", *(f"{each}/{file}".lstrip("/") for each in folders for file in ADAPTER)
    )
    with adapter_in(root) as found:
        assert found == root / expected
    if "m/" not in expected:  # deeper than archives are searched
        with adapter_in(zipped(root, tmp_path / "it.zip")) as found:
            assert found.as_posix().endswith(f"out/{expected}".rstrip("/"))
            assert {file.name for file in found.iterdir() if file.is_file()} == {*ADAPTER}


def test_a_checkpoint_that_is_still_written_is_left_out(tmp_path: Path) -> None:
    files = [f"checkpoint-1/{file}" for file in ADAPTER]
    with adapter_in(write(tmp_path, *files, f"checkpoint-2/{CONFIG_FILE}")) as found:
        assert found.name == "checkpoint-1"


@pytest.mark.parametrize(("file", "message"), OTHERS.items())
def test_a_folder_without_an_adapter_is_refused_and_the_reason_named(
    tmp_path: Path, file: str, message: str
) -> None:
    with pytest.raises(AdapterRejected, match=message), adapter_in(write(tmp_path, file)):
        pass


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([CONFIG_FILE, PICKLED_FILE], AdapterRejected, "can run code"),
        ([CONFIG_FILE], AdapterRejected, "may still be writing"),
        (
            [f"{name}/{file}" for name in ("a", "b") for file in ADAPTER],
            SettingsError,
            "has 2 adapters; name one of them: a, b",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused(
    tmp_path: Path, files: list[str], error: type[LorikeetError], message: str
) -> None:
    with pytest.raises(error, match=message), adapter_in(write(tmp_path, *files)):
        pass


def test_neither_a_missing_folder_nor_a_hub_id_nor_a_broken_archive_is_accepted(
    tmp_path: Path,
) -> None:
    cut = zipped(write(tmp_path / "out", *ADAPTER), tmp_path / "it.zip")
    cut.write_bytes(cut.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09", 1))
    for path, message in (
        (tmp_path / "gone", "neither a folder nor a zip"),
        (Path("org/name"), "`lorikeet adapters load`"),
        (cut, "can't be unpacked"),
    ):
        with pytest.raises(SettingsError, match=message), adapter_in(path):
            pass


def test_an_error_names_the_archive_and_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    archive = tmp_path / "it.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(f"../../{WEIGHTS_FILE}", "x")
    with pytest.raises(AdapterRejected, match=f"^{archive}"), adapter_in(archive):
        pass
    assert [file.name for file in tmp_path.rglob("*")] == ["it.zip"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat_template.jinja", True),
        ("tokenizer_config.json", True),
        ("../chat_template.jinja", False),
        ("/etc/a.jinja", False),
        (".jinja", False),
        ("adapter_config.json", False),
        ("a" * 200 + ".jinja", False),
    ],
)
def test_only_plain_names_of_prompt_files_are_written_by_workers(name: str, expected: bool) -> None:
    assert is_prompt_file(name) is expected
