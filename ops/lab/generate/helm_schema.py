"""Writes the settings into the schema of the Helm chart's values.

Run `python -m ops.lab.generate.helm_schema` after a change of shared/settings.py. The rest of
the schema is written by hand. With this schema, Helm refuses misspelt settings, and values with
which a process wouldn't start.
"""

import json
from pathlib import Path
from typing import Any

from shared.settings import ApiSettings, ControlSettings, PoolSettings, WorkerSettings

SCHEMA = Path(__file__).parents[2] / "helm" / "lorikeet" / "values.schema.json"
SET_BY_THE_CHART: dict[type[PoolSettings], frozenset[str]] = {
    PoolSettings: frozenset({"redis_url", "pool"}),
    ApiSettings: frozenset(
        {"host", "port", "api_keys", "api_key_file", "metrics_key", "allow_anonymous"}
    ),
    WorkerSettings: frozenset(
        {
            *("engine", "model", "served_name", "adapters", "adapter_roots", "device"),
            *("adapter_store", "vllm_python"),
        }
    ),
    ControlSettings: frozenset({"webhook_secret"}),  # extraEnv can take it from a Secret
}
"""Settings that follow from other values of the chart, or that containers don't need."""
_DEFINITIONS: dict[str, type[PoolSettings]] = {
    "settings": PoolSettings,
    "apiSettings": ApiSettings,
    "workerSettings": WorkerSettings,
    "controlSettings": ControlSettings,
}


def schema() -> str:
    """Return the chart's schema with the settings of this release, as JSON."""
    parsed: dict[str, Any] = json.loads(SCHEMA.read_text())
    parsed["$defs"] |= {name: _settings(cls) for name, cls in _DEFINITIONS.items()}
    return json.dumps(parsed, indent=2) + "\n"


def _settings(cls: type[PoolSettings]) -> dict[str, Any]:
    """Return the schema of the settings that only `cls` has and that the chart's users may set."""
    common = frozenset(PoolSettings.model_fields) if cls is not PoolSettings else frozenset[str]()
    left_out = common | SET_BY_THE_CHART[cls]
    properties = cls.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {key: value for key, value in of.items() if key not in ("title", "default")}
            for name, of in properties.items()
            if name not in left_out
        },
    }


if __name__ == "__main__":
    SCHEMA.write_text(schema())
