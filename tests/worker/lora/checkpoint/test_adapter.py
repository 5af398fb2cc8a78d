"""Reading adapters: weights, scaling, versions, prompting, and sources on the hub."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import huggingface_hub
import pytest
import torch
from adapter_folders import CONFIG, WEIGHTS, change_tensors, read_adapter, set_field
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from threaded_server import LocalServer, QuietHandler, reply, running
from tiny import save_adapter

from shared.adapter_flags import is_hub_id
from shared.errors import AdapterRejected, ModelRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.prompting import Prompting, read_prompting
from worker.model.loading.folder import find_model

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "a", r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"])


def test_an_adapter_has_its_name_rank_and_size(base: BaseModules, folder: Path) -> None:
    adapter = read_adapter(base, folder, "org/sql")
    assert adapter.version == f"org/sql@{adapter.digest[:12]}"
    assert len(adapter.digest) == len(adapter.weights_digest) == 64
    assert (adapter.rank, adapter.source, adapter.folder) == (4, str(folder), folder)
    # q: 4 x (64 + 64), v: 4 x (64 + 32), two layers, 4 bytes each
    assert adapter.num_bytes == 2 * 4 * (128 + 96) * 4


def test_weights_have_the_pools_dtype_and_b_contains_the_scaling(
    base: BaseModules, folder: Path
) -> None:
    stored = load_file(folder / WEIGHTS)
    weights = read_adapter(base, folder, dtype=torch.bfloat16).modules[Q0]
    assert weights.scaling == 2.5
    assert torch.equal(weights.a, stored[f"base_model.model.{Q0}.lora_A.weight"].bfloat16())
    b = (stored[f"base_model.model.{Q0}.lora_B.weight"] * 2.5).bfloat16()
    assert torch.equal(weights.b, b)
    version = read_adapter(base, folder).version
    named = {n.replace(".weight", ".default.weight"): tensor for n, tensor in stored.items()}
    save_file(named, folder / WEIGHTS)
    assert read_adapter(base, folder).version == version, "names may contain the adapter's name"


def write(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("{}")


B0 = f"base_model.model.{Q0}.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "is_other_version", "has_other_weights"),
    [
        (lambda folder: change_tensors(folder, lambda t: t[B0][0, 0].add_(1)), True, True),
        (lambda folder: set_field(folder, lora_alpha=11), True, True),
        (lambda folder: set_field(folder, lora_dropout=0.5), False, False),
        (write("README.md"), False, False),
        (write("chat_template.jinja"), True, False),
        (write("tokenizer_config.json"), True, False),
        (write("generation_config.json"), True, False),
    ],
)
def test_changes_with_effect_on_answers_make_another_version(
    base: BaseModules,
    folder: Path,
    change: Callable[[Path], object],
    is_other_version: bool,
    has_other_weights: bool,
) -> None:
    before = read_adapter(base, folder)
    change(folder)
    after = read_adapter(base, folder)
    assert (after.version != before.version) == is_other_version
    assert (after.weights_digest != before.weights_digest) == has_other_weights


def test_a_hub_id_or_its_snapshot_is_read_offline_through_the_links_of_the_cache(
    base: BaseModules, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterRejected, match=r"'org/sql' isn't a folder .* cache on this machine"):
        AdapterFiles.find("org/sql")
    repo = tmp_path / "hub" / "models--org--sql"
    snapshot = repo / "snapshots" / ("0" * 40)
    for made in (repo / "blobs", repo / "refs", snapshot):
        made.mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    for file in (CONFIG, WEIGHTS):
        shutil.copy(folder / file, repo / "blobs" / file)
        (snapshot / file).symlink_to(Path("../../blobs") / file)
    adapter = read_checkpoint("a", AdapterFiles.find("org/sql"), base, dtype=torch.float32)
    assert adapter.source == "org/sql"
    of_folder = read_adapter(base, folder)
    assert adapter.version == read_adapter(base, snapshot).version == of_folder.version


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LocalEntryNotFoundError("Got: ConnectError"), "can't be reached .* check the network"),
        (httpx.ProxyError("refused"), "can't be reached .*refused"),
        (HFValidationError("bad name"), "hub failed .*bad name.*correct the name"),
        (OSError(errno.ENOSPC, "No space left"), "hub failed .*No space left"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_failed_download_says_whether_the_hub_can_be_reached(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Mock(side_effect=error))
    with pytest.raises(AdapterRejected, match=f"'org/sql' isn't a folder .*{reason}"):
        AdapterFiles.find("org/sql")
    with pytest.raises(ModelRejected, match=f"--model org/base: .*{reason}"):
        find_model("org/base")


def test_errors_name_the_source_and_not_the_folder_it_was_resolved_to(
    base: BaseModules, tmp_path: Path
) -> None:
    files = AdapterFiles(tmp_path, "org/sql")
    for _ in range(2):
        with pytest.raises(AdapterRejected, match=f"{WEIGHTS} is missing"):
            _ = files.header
    assert files.base_model_name is None
    with pytest.raises(AdapterRejected, match=r"adapter a from org/sql: .* is missing"):
        read_checkpoint("a", files, base, dtype=torch.float32)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "chat_template.jinja"])
def test_files_that_are_written_or_added_have_changed(tmp_path: Path, name: str) -> None:
    files = AdapterFiles(save_adapter(tmp_path / "a", target_modules=["q_proj"]))
    assert not files.have_changed()
    (files.folder / name).write_bytes(b"other")
    assert files.have_changed()


TOKEN = "hf_secret"

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
LOCATE = """
import sys
from shared.errors import AdapterRejected, SourceFailed
from worker.lora.checkpoint.hub import adapter_folder
for source in sys.argv[1:]:
    try:
        print((adapter_folder(source) / "adapter_config.json").read_text())
    except SourceFailed as error:
        print(error.code)
    except AdapterRejected as error:
        print("rejected")
"""


class Hub(QuietHandler):
    """The routes of the hub that a download of org/repo needs."""

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        organisation, name, route, revision = parts[2:6] if is_api else parts[:4]
        commit = COMMITS.get(revision, revision if revision in COMMITS.values() else "")
        is_known = (organisation, name) == ("org", "repo")
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or not is_known:
            reply(self, 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif not commit:
            reply(self, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif is_api:
            info = {"id": "org/repo", "sha": commit, "siblings": [{"rfilename": CONFIG}]}
            tree = [{"type": "file", "path": CONFIG, "size": len(commit), "oid": commit}]
            body = json.dumps(tree if route == "tree" else info).encode()
            reply(self, 200, body, {"Content-Type": "application/json"})
        else:
            reply(self, 200, commit.encode(), {"ETag": f'"{commit}"', "X-Repo-Commit": commit})

    do_HEAD = do_GET


def located(endpoint: str, home: Path, *sources: str, token: str = TOKEN) -> list[str]:
    """Return what a process with its own cache of the hub prints of each source."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", LOCATE, *sources]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_revision_is_read_with_the_token_and_only_a_hub_that_is_down_is_unavailable(
    tmp_path: Path,
) -> None:
    sources = "org/repo", "org/repo@v2", f"org/repo@{COMMITS['v2']}", "org/none", "org/repo@none"
    with running(LocalServer(Hub)) as hub:
        found = located(hub.url, tmp_path / "1", *sources)
        assert found == [COMMITS["main"], COMMITS["v2"], COMMITS["v2"], "rejected", "rejected"]
        assert located(hub.url, tmp_path / "2", "org/repo", token="hf_wrong") == ["rejected"]
    assert located("http://127.0.0.1:9", tmp_path / "3", "org/repo") == ["service_unavailable"]


def test_revisions_cannot_lead_out_of_the_hubs_cache() -> None:
    for source in ("org/repo", "org/repo@v2", "org/repo@refs/pr/1", "org/re.po@1.0"):
        assert is_hub_id(source)
    for source in ("org/repo@", "org/repo@../x", "org/repo@a/../../x", "org/repo@/x", "org/r@a b"):
        assert not is_hub_id(source)


TEMPLATE = "{{ bos_token }}<|im_start|>{{ messages[0].content }}"


def read(tokenizer: Any = None, generation: Any = None, **files: str) -> Prompting:
    contents = {name: text.encode() for name, text in files.items()}
    if tokenizer is not None:
        contents["tokenizer_config.json"] = json.dumps(tokenizer).encode()
    if generation is not None:
        contents["generation_config.json"] = json.dumps(generation).encode()
    return read_prompting(contents)


NAMED = [{"name": n, "template": n.upper()} for n in ("default", "tool_use", "rag")]
ADDED = {"7": {"content": "<|im_start|>"}, "8": {"content": "[PAD]"}}


@pytest.mark.parametrize(
    ("tokenizer", "files", "expected"),
    [
        (None, {}, Prompting()),
        ({"chat_template": "old"}, {}, Prompting(templates={"default": "old"})),
        (
            {"chat_template": "old"},
            {"chat_template.jinja": "new", "other.jinja": "x"},
            Prompting(templates={"default": "new"}, unused=("other.jinja",)),
        ),
        (
            {"chat_template": NAMED},
            {},
            Prompting(templates={"default": "DEFAULT", "tool_use": "TOOL_USE"}),
        ),
        (
            {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None},
            {},
            Prompting(special_tokens={"bos_token": "<s>", "eos_token": "</s>"}),
        ),
        (
            {"chat_template": TEMPLATE, "added_tokens_decoder": ADDED},
            {},
            Prompting(templates={"default": TEMPLATE}, token_ids={"<|im_start|>": 7}),
        ),
    ],
    ids=["none", "a field", "a file", "named templates", "special tokens", "added tokens"],
)
def test_prompting_is_read_from_the_tokenizers_configuration_and_templates(
    tokenizer: Any, files: dict[str, str], expected: Prompting
) -> None:
    assert read(tokenizer, **files) == expected


@pytest.mark.parametrize(
    ("generation", "eos_ids", "sampling"),
    [
        ({}, (), {}),
        ({"eos_token_id": 2}, (2,), {}),
        ({"eos_token_id": [2, 5], "temperature": 0.6}, (2, 5), {"temperature": 0.6}),
        ({"do_sample": True, "top_k": 20, "top_p": 1}, (), {"top_k": 20, "top_p": 1}),
        ({"do_sample": False, "temperature": 0.6}, (), {"temperature": 0.0}),
        (
            {"min_p": 0.1, "repetition_penalty": 1.2, "max_new_tokens": 9},
            (),
            {"min_p": 0.1, "repetition_penalty": 1.2},
        ),
    ],
    ids=str,
)
def test_a_generation_config_sets_end_tokens_and_defaults(
    generation: dict[str, Any], eos_ids: tuple[int, ...], sampling: dict[str, float]
) -> None:
    found = read(generation=generation)
    assert (found.eos_ids, found.sampling) == (eos_ids, sampling)


TOKENIZER, GENERATION = "tokenizer_config.json", "generation_config.json"
WITHOUT_DEFAULT = '{"chat_template": [{"name": "rag", "template": "x"}]}'
BAD_TOKEN = '{"chat_template": "x", "added_tokens_decoder": {"1": {"content": 5}}}'


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (TOKENIZER, "{", "tokenizer_config.json isn't JSON"),
        (TOKENIZER, '{"chat_template": 3}', "chat_template is neither"),
        (TOKENIZER, WITHOUT_DEFAULT, "chat_template is neither"),
        (TOKENIZER, '{"added_tokens_decoder": [1]}', "added_tokens_decoder"),
        (TOKENIZER, BAD_TOKEN, "added_tokens_decoder"),
        (GENERATION, "[]", "generation_config.json isn't a JSON object"),
        (GENERATION, '{"eos_token_id": "x"}', "eos_token_id='x' isn't a token id"),
        (GENERATION, '{"eos_token_id": [-1]}', "isn't a token id"),
        (GENERATION, '{"temperature": -1}', "temperature=-1 isn't supported"),
        (GENERATION, '{"temperature": true}', "temperature=True isn't supported"),
        (GENERATION, '{"top_k": 2.5}', "top_k=2.5 isn't supported"),
        (GENERATION, '{"top_p": NaN}', "top_p=nan isn't supported"),
        (GENERATION, '{"top_p": 0}', "top_p=0 isn't supported"),
        (GENERATION, f'{{"top_k": 1{"0" * 400}}}', "top_k=1000.* isn't supported"),
    ],
    ids=str,
)
def test_malformed_files_are_refused_by_file_and_field(file: str, text: str, message: str) -> None:
    with pytest.raises(AdapterRejected, match=message):
        read_prompting({file: text.encode()})


def test_an_adapter_has_the_prompting_of_its_folder(base: BaseModules, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, target_modules=["q_proj"])
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": 9}')
    adapter = read_adapter(base, folder)
    assert adapter.prompting == Prompting(templates={"default": TEMPLATE}, eos_ids=(9,))
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(AdapterRejected, match=r"a from .*chat_template\.jinja isn't UTF-8"):
        read_adapter(base, folder)
