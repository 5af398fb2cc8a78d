"""Describes the models of a pool as Ollama does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.ollama.timestamps import timestamp
from shared.protocol.adapters import Adapter, BaseModel
from shared.store.adapters.registry import Found
from shared.store.views.pool_views import WorkerView

LATEST = ":latest"
"""Tag that Ollama's clients add to names without a tag."""
FAMILY = "lorikeet"
"""Value of the fields for the model's architecture, which front ends don't know. Clients use it as
a prefix to find the context length in `model_info`."""
FOREVER = "2200-01-01T00:00:00Z"
"""Reported time at which a model is unloaded. Ollama's clients show such a late time as forever."""
_LEVELS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A base model, or an adapter with its base model."""

    name: str
    """Name under which the model is listed."""
    base: BaseModel
    adapter: Adapter | None
    workers: Sequence[WorkerView]
    """Workers of the pool."""

    @property
    def is_held(self) -> bool:
        """Whether a worker holds the model. All workers hold the base model."""
        if self.adapter is None:
            return bool(self.workers)
        return any(self.adapter.version in worker.residents for worker in self.workers)

    @property
    def capabilities(self) -> list[str]:
        """Capabilities of the model, in Ollama's words."""
        found = Found(self.base, self.adapter, is_base=self.adapter is None)
        can = {
            "completion": True,
            "tools": found.tool_form is not None,
            "thinking": found.reasoning is not None,
            "embedding": self.base.embedding_size > 0,
            "vision": self.base.takes_images,
        }
        return [name for name, is_able in can.items() if is_able]

    @property
    def _size(self) -> int:
        if self.adapter:
            return self.adapter.num_bytes
        return max((worker.info.weight_bytes for worker in self.workers), default=0)

    @property
    def _created_at(self) -> str:
        return timestamp((self.adapter or self.base).created_s)

    @property
    def _names(self) -> dict[str, str]:
        return {"name": tagged(self.name), "model": tagged(self.name)}

    @property
    def _digest(self) -> str:
        return self.adapter.digest if self.adapter else self.base.version.rpartition("@")[2]

    @property
    def _details(self) -> dict[str, Any]:
        dtypes = {worker.info.dtype for worker in self.workers}
        is_gguf = self.adapter is None and self.base.source.endswith(".gguf")
        size = self.base.embedding_size
        return {
            "parent_model": tagged(self.base.name) if self.adapter else "",
            "format": "gguf" if is_gguf else "safetensors",
            "family": FAMILY,
            "families": [FAMILY],
            "parameter_size": "",
            "quantization_level": ", ".join(sorted(_LEVELS.get(d, d) for d in dtypes)),
            "context_length": self.base.max_model_len,
            **({"embedding_length": size} if size else {}),
        }

    def listed(self) -> dict[str, Any]:
        """Return the model as an item of /api/tags."""
        return {
            **self._names,
            "modified_at": self._created_at,
            "size": self._size,
            "digest": self._digest,
            "details": self._details,
            "capabilities": self.capabilities,
        }

    def running(self) -> dict[str, Any]:
        """Return the model as an item of /api/ps."""
        return {
            **self._names,
            "size": self._size,
            "digest": self._digest,
            "details": self._details,
            "expires_at": FOREVER,
            "size_vram": self._size,
            "context_length": self.base.max_model_len,
        }

    def shown(self) -> dict[str, Any]:
        """Return the model as /api/show does."""
        base, lines = self.base, [f"FROM {self.base.name}"]
        if self.adapter:
            lines.append(f"ADAPTER {self.adapter.version}")
        return {
            "modelfile": "\n".join(lines) + "\n",
            "parameters": f"num_ctx                        {base.max_model_len}",
            "template": "",
            "details": self._details,
            "model_info": self._model_info,
            "capabilities": self.capabilities,
            "modified_at": self._created_at,
        }

    @property
    def _model_info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "general.architecture": FAMILY,
            "general.basename": self.name,
            f"{FAMILY}.context_length": self.base.max_model_len,
        }
        if self.base.embedding_size:
            info[f"{FAMILY}.embedding_length"] = self.base.embedding_size
        if self.adapter:
            info |= {"adapter.type": "lora", "adapter.lora.rank": self.adapter.rank}
        return info


def tagged(name: str) -> str:
    """Return the name under which a model is listed. Like Ollama's names, it has a tag."""
    return name if ":" in name else f"{name}{LATEST}"
