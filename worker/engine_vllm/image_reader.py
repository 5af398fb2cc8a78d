"""Prepares the images of prompts with vLLM's own code, exactly as vLLM's server does."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import structlog
from vllm.model_executor.model_loader import get_model_cls
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.processing import ProcessorInputs, TimingContext
from vllm.multimodal.utils import argsort_mm_positions
from vllm.renderers.hf import _detect_content_format
from vllm.utils.torch_utils import set_default_torch_num_threads

from shared.errors import JobFailed, first_line, invalid_value
from shared.protocol.images import PLACE, text_of

log = structlog.get_logger()


class VllmImageReader:
    """Puts images into prompts. Thread-safe."""

    def __init__(self, config: Any) -> None:
        """Create a reader for the model of `config`, which is vLLM's configuration."""
        budget = MultiModalBudget(config, MULTIMODAL_REGISTRY, enable_cache=False)
        self._processor = budget.processor
        self._max_tokens = budget.encoder_cache_size
        """Maximum number of tokens of an image. vLLM never runs a request with a larger image."""
        self._model_class = get_model_cls(config.model_config)
        self._media = ImageMediaIO()
        self._lock = Lock()

    def messages(
        self, messages: Sequence[Mapping[str, Any]], template: str
    ) -> list[dict[str, Any]]:
        """Return the messages in the form that `template` reads, as vLLM's server does.

        Some templates read lists of parts. Others read text with the model's own marks for images.
        """
        if _detect_content_format(template, default="string") == "openai":
            return [{**message, "content": _parts(message["content"])} for message in messages]
        return self._marked(messages)

    def encode(self, ids: list[int], images: Sequence[str]) -> tuple[list[int], object]:
        """Return a prompt's tokens, including those of its images, and the argument for `features`.

        `images` are files in base64. The prompt `ids` must contain one mark for each image.

        Raises:
            JobFailed: an image is broken or has too many tokens, or the prompt lacks a mark.
        """
        try:
            pictures = [self._media.load_bytes(b64decode(image)) for image in images]
            with self._lock, set_default_torch_num_threads():
                items = self._processor.info.parse_mm_data({"image": pictures})
                found: Any = self._processor.apply(
                    ProcessorInputs(ids, items), TimingContext(enabled=False)
                )
        except Exception as error:  # Pillow, processors and vLLM raise many error types
            log.warning("images_refused", error=repr(error))
            raise _refusal(f"can't be read: {first_line(error)}") from error
        for place in found["mm_placeholders"]["image"]:
            if place.get_num_embeds() > self._max_tokens:
                raise _refusal(f"have more than {self._max_tokens} tokens; send smaller ones")
        return found["prompt_token_ids"], found

    def _marked(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages as text only. Marks of a message's images come before its text."""
        marked, number = [], 0
        for message in messages:
            content, marks = message["content"], []
            for _ in range(0 if isinstance(content, str) else content.count(PLACE)):
                number += 1
                marks.append(self._model_class.get_placeholder_str("image", number))
            marked.append({**message, "content": "\n".join([*marks, text_of(content)])})
        return marked


def features(found: Any, salt: str) -> list[MultiModalFeatureSpec]:
    """Return a prompt's images in vLLM's form. `found` is the second result of `encode`.

    vLLM computes features of each image. It reuses them only in requests with the same `salt`.
    """
    places, hashes = found["mm_placeholders"], found["mm_hashes"]
    return [
        MultiModalFeatureSpec(
            data=found["mm_kwargs"][modality][index],
            modality=modality,
            identifier=f"{salt}{hashes[modality][index]}",
            mm_position=places[modality][index],
            mm_hash=hashes[modality][index],
        )
        for modality, index in argsort_mm_positions(places)
    ]


def _parts(content: Any) -> Any:
    is_text = isinstance(content, str) and content
    return [{"type": "text", "text": content}] if is_text else content


def _refusal(reason: str) -> JobFailed:
    return invalid_value(f"messages: the images {reason}", "messages")
