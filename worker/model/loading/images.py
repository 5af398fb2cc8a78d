"""Determines which base models can read images."""

from typing import Any

from worker.upstream.model_classes import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def takes_images(config: Any) -> bool:
    """Return whether a model with this configuration can read images on some engine."""
    has_vision = getattr(config, "vision_config", None) is not None
    return has_vision and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
