"""The targeting of an adapter's configuration."""

import json

from worker.lora.base.targeting import Targeting
from worker.lora.checkpoint.config import parse_config


def targeting(**fields: object) -> Targeting:
    text = json.dumps({"peft_type": "LORA", **fields}).encode()
    return parse_config(text, False).targeting
