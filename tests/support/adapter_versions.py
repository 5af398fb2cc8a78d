"""Entries of adapter versions for tests of the registry."""

from typing import Any

from queue_support import make_adapter

from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import AdapterVersion

BASE = BaseModel(
    name="base", version=AdapterVersion("base@1"), max_model_len=8, source="b", created_s=1
)


def version_of(digest: str, *, name: str = "a", **changes: Any) -> Adapter:
    fields = {"digest": digest, "weights_digest": digest, "source": f"/adapters/{digest}"}
    return make_adapter(f"{name}@{digest}", **{**fields, "created_s": 10, **changes})
