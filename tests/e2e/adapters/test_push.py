"""`lorikeet adapters push` sends what trainers have saved to workers that can't read its folder."""

import json
import shutil
from pathlib import Path

import httpx
import pytest
from adapter_traffic import Folders
from servers import Server, run_lorikeet
from tiny import save_adapter

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}<{{ m.content }}>{% endfor %}"


@pytest.fixture
def trained(folders: Folders, tmp_path: Path) -> Path:
    """Return a trainer's output folder outside the roots: two checkpoints, one with a template."""
    for step, seed in ((10, 71), (20, 72)):
        save_adapter(tmp_path / "out" / f"checkpoint-{step}", seed=seed, r=4)
    (tmp_path / "out" / "checkpoint-20" / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path / "out"


def pushed(server: Server, *words: str) -> str:
    done = run_lorikeet("adapters", "--url", server.url, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server: Server, *words: str) -> str:
    done = run_lorikeet("adapters", "--url", server.url, *words)
    assert done.returncode
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


async def test_a_pushed_adapter_is_the_one_in_its_folder_with_its_template(
    http: httpx.AsyncClient, server: Server, folders: Folders, trained: Path
) -> None:
    shown = pushed(server, "push", "pushed", str(trained))
    assert "sending checkpoint-20" in shown
    assert "with chat_template.jinja" in shown
    shutil.copytree(trained / "checkpoint-20", folders.root / "same")
    pushed(server, "load", "same", str(folders.root / "same"))
    digests = [
        (await http.get(f"/v1/adapters/{name}")).json()["version"].partition("@")[2]
        for name in ("pushed", "same")
    ]
    assert digests[0] == digests[1]
    chat = {"model": "pushed", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    reply = await http.post("/v1/chat/completions", json={**chat, "return_token_ids": True})
    assert len(reply.json()["prompt_token_ids"]) == len("<hi>")


async def test_a_name_in_use_needs_replace_and_a_new_one_no_canary(
    http: httpx.AsyncClient, server: Server, trained: Path
) -> None:
    archive = shutil.make_archive(str(trained), "zip", trained)
    assert "does not exist" in refused(server, "push", "fresh", archive, "--canary", "5")
    pushed(server, "push", "fresh", archive)
    earlier, later = trained / "checkpoint-10", str(trained)
    assert "give --replace" in refused(server, "push", "fresh", str(earlier))
    first = (await http.get("/v1/adapters/fresh")).json()["version"]
    pushed(server, "push", "fresh", str(earlier), "--replace")
    assert (await http.get("/v1/adapters/fresh")).json()["version"] != first
    shown = pushed(server, "push", "fresh", later, "--canary", "10")
    assert "canary for 10 %" in shown
    assert "`lorikeet adapters drop fresh` ends the trial" in shown
    found = (await http.get("/v1/adapters/fresh")).json()
    assert (found["candidate"]["version"], found["candidate"]["percent"]) == (first, 10)
    pushed(server, "promote", "fresh")
    assert (await http.get("/v1/adapters/fresh")).json()["version"] == first


async def test_a_damaged_adapter_and_one_that_is_too_large_are_refused(
    http: httpx.AsyncClient, server: Server, trained: Path, tmp_path: Path
) -> None:
    config = trained / "checkpoint-10" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "r": 9}))
    assert "shape" in refused(server, "push", "bad", str(config.parent))
    weights = trained / "checkpoint-20" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + bytes(3 << 20))
    assert "larger than 1 MiB" in refused(server, "push", "bad", str(weights.parent))
    weights.write_bytes(b"{}")
    assert "isn't a safetensors file" in refused(server, "push", "bad", str(weights.parent))
    assert (await http.get("/v1/adapters/bad")).status_code == 404


def test_the_error_for_a_folder_outside_the_roots_names_push(server: Server, trained: Path) -> None:
    message = refused(server, "load", "outside", str(trained / "checkpoint-10"))
    assert "`lorikeet adapters push NAME FOLDER`" in message
