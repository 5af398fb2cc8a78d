"""Base models and adapters that are refused before anything is loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from adapter_folders import WEIGHTS, set_field
from chatglm import save_chatglm, save_pickled_adapter
from tiny import save_adapter, save_tiny_model

from shared.errors import AdapterRejected, ModelRejected, SettingsError
from shared.settings import WorkerSettings
from worker.startup.check_files import CheckedFiles, check_files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "good", seed=1, r=2, target_modules=["q_proj"])
    return tmp_path / "good"


def settings(model: Path, *adapters: str, **more: object) -> WorkerSettings:
    return WorkerSettings(model=str(model), adapters=adapters, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "config.json is missing; name a folder with a model"),
        ({"adapter_config.json": "{}"}, "this is a LoRA adapter; name it in --adapters"),
        ({"config.json": "{"}, "config.json can't be read"),
        ({"config.json": "[]"}, "isn't a JSON object"),
    ],
)
def test_a_folder_without_a_model_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelRejected, match=message):
        check_files(settings(tmp_path))


def test_all_bad_adapters_are_named_with_their_reasons(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    for name in ("pickled", "short", "unknown"):
        shutil.copytree(adapter, tmp_path / name)
    (tmp_path / "pickled" / WEIGHTS).unlink()
    weights = tmp_path / "short" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    set_field(tmp_path / "unknown", use_bdlora=True)
    names = ["lost", "pickled", "short", "unknown"]
    given = [f"good={adapter}", f"tiny={adapter}", *(f"{n}={tmp_path / n}" for n in names)]
    with pytest.raises(AdapterRejected) as refusal:
        check_files(settings(model, *given))
    first, *lines = str(refusal.value).splitlines()
    assert first.startswith("5 of 6 adapters can't be served; ")
    assert "--skip-bad-adapters" in first
    reasons = ["base model's name", "neither a folder", "is missing", "truncated", "use_bdlora"]
    for line, name, reason in zip(lines, ["tiny", *names], reasons, strict=True):
        assert line.startswith(f"  adapter {name} from ")
        assert reason in line
    checked = check_files(settings(model, *given, skip_bad_adapters=True))
    assert checked == CheckedFiles(model, frozenset({"tiny", *names}))


def test_a_good_model_and_adapter_pass_and_one_that_cannot_be_looked_at_may_be_left_out(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    assert check_files(settings(model, f"good={adapter}")) == CheckedFiles(model, frozenset())
    given = [f"good={adapter}", f"hidden={tmp_path / ('x' * 300)}"]
    with pytest.raises(AdapterRejected, match=r"adapter hidden from .* can't be read: File name"):
        check_files(settings(model, *given))
    checked = check_files(settings(model, *given, skip_bad_adapters=True))
    assert checked.left_out == {"hidden"}
    with pytest.raises(SettingsError, match="--adapter-root: '/no/root' isn't a folder"):
        check_files(settings(model, adapter_roots=("/no/root",)))


def test_a_chatglm_checkpoint_and_an_adapter_in_pickles_pass(tmp_path: Path) -> None:
    tensors = save_chatglm(tmp_path / "glm", pickled=True)
    adapter = save_pickled_adapter(tmp_path / "old", tensors, ["query_key_value"])
    checked = check_files(settings(tmp_path / "glm", f"old={adapter}"))
    assert checked == CheckedFiles(tmp_path / "glm", frozenset())


def test_the_checks_import_nothing_that_takes_seconds(model: Path, adapter: Path) -> None:
    code = (
        "import sys; from shared.settings import WorkerSettings; "
        "from worker.startup.check_files import check_files; "
        "check_files(WorkerSettings(model=sys.argv[1], adapters=[sys.argv[2]])); "
        "print({'torch', 'peft', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, str(model), str(adapter)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
