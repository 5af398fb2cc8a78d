"""Runs the Lorikeet server that answers a peer's tests.

The server serves the demo model under the names that the tests ask for.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
from safetensors.numpy import save_file

from ops.demo.model import demo_model
from ops.lab.bench.servers.checkouts import LORIKEET
from ops.lab.machine import ROOT
from ops.lab.server_processes import clean_environment, process, wait_until_serves
from ops.local.ports import free_port

START_TIMEOUT_S = 300.0
FLAGS = ("--data-dir", "none", "--log-level", "warning", "--workers", "1", "--threads", "2")
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Settings of a server that a peer's test asks for."""

    name: str
    """Name of the base model."""
    further_names: tuple[str, ...] = ()
    """Names of adapters without an effect, so that they answer like the base model."""
    max_model_len: int | None = None
    api_key: str | None = None
    template: str | None = None
    """Chat template, or None for the demo model's own template."""
    flags: tuple[str, ...] = ()
    port: int | None = None
    """Port of the server, or None for any free port."""


@dataclass(slots=True)
class CurrentServer:
    """Runs one server at a time. The server is kept until a test asks for other settings."""

    _stack: ExitStack = field(default_factory=ExitStack)
    _served: Served | None = None
    _port: int = 0

    def port_of(self, served: Served) -> int:
        """Return the port of a server with the settings `served`. Start it if it isn't running.

        Raises:
            ServerFailed: the server didn't become ready.
        """
        if served != self._served:
            self.stop()
            self._port = self._start(served)
            self._served = served
        return self._port

    def stop(self) -> None:
        """Stop the server, if one is running."""
        self._served = None
        self._stack.close()

    def _start(self, served: Served) -> int:
        port = served.port or free_port()
        scratch = Path(self._stack.enter_context(TemporaryDirectory(prefix="lorikeet-peers-")))
        words = [*LORIKEET, "up", str(model_folder(served.template, scratch))]
        words += ["--served-name", served.name, "--port", str(port), *FLAGS, *served.flags]
        if served.further_names:
            folder = neutral_adapter(scratch)
            words += ["--adapters", *(f"{name}={folder}" for name in served.further_names)]
        if served.max_model_len:
            words += ["--max-model-len", str(served.max_model_len)]
        if served.api_key:
            words += ["--api-key", served.api_key]
        environment = clean_environment() | {"PYTHONPATH": str(ROOT)}
        started = self._stack.enter_context(process("lorikeet", words, scratch, environment))
        wait_until_serves(
            f"http://127.0.0.1:{port}",
            ready="/ready/worker",
            names={served.name, *served.further_names},
            started=[started],
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
            api_key=served.api_key,
        )
        return port


def model_folder(template: str | None, scratch: Path) -> Path:
    """Return the folder of the demo model, or of a copy with another chat template."""
    model = demo_model()
    if template is None:
        return model
    copy = scratch / "model"
    copy.mkdir()
    for path in model.iterdir():
        if path.name != TEMPLATE:
            (copy / path.name).symlink_to(path)
    (copy / TEMPLATE).write_text(template)
    return copy


def neutral_adapter(scratch: Path) -> Path:
    """Write an adapter that changes nothing, and return its folder."""
    size = orjson.loads((demo_model() / "config.json").read_bytes())["hidden_size"]
    folder = scratch / "adapter"
    folder.mkdir()
    config: Mapping[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        "layers_to_transform": [0],
    }
    (folder / "adapter_config.json").write_bytes(orjson.dumps(config))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes: Mapping[str, Sequence[int]] = {"lora_A": (1, size), "lora_B": (size, 1)}
    tensors = {
        f"{prefix}.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


SERVER = CurrentServer()
"""The server of this process of pytest."""
