"""vLLM's answers to prompts with images agree with transformers + PEFT, for base and adapters."""

import base64
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import BLUE, RED, image_file
from PIL import Image
from queue_support import make_job
from reference import MAX_GAP, with_adapter
from tiny_vision import (
    IMAGE,
    LATEST,
    NAMES,
    TOKENS_PER_IMAGE,
    save_tiny_vision_model,
    save_vision_adapter,
    tiny_vision_model,
)
from transformers import AutoProcessor, GenerationConfig

from ops.lab.generate.models.vllm_answer import resident
from shared.errors import JobFailed
from shared.protocol.capabilities import Feature
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, Job
from shared.settings import WorkerSettings
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.engine_vllm.environment import set_environment
from worker.served_model import ServedModel

NUM_TOKENS = 12
BASE = "base"
FILES = {
    "red": image_file(colour=RED),
    "blue": image_file("JPEG", (40, 30), BLUE),
    "wide": image_file("WEBP", (90, 20), (10, 200, 40)),
}


@dataclass(frozen=True)
class Vision:
    folder: Path
    served: ServedModel
    versions: dict[str, AdapterVersion | None]

    def job(self, text: str, *images: str) -> Job:
        parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
        return make_job(
            "m@1",
            endpoint=Endpoint.CHAT,
            prompts=(),
            messages=({"role": "user", "content": parts if images else text},),
            images=tuple(base64.b64encode(FILES[name]).decode() for name in images),
        )

    def request(self, name: str, job: Job, number: int) -> Request:
        tokenizer: Any = self.served.tokenizer
        (prompt,) = tokenizer.encode(job)
        return Request(
            id=RequestId(f"{job.id}:{number}"),
            prompt_ids=prompt.ids,
            images=prompt.images,
            version=self.versions[name],
            sampling=ChoiceSampling(seed=0, temperature=0.0),
            max_tokens=NUM_TOKENS,
        )

    def answers(self, requests: Sequence[Request]) -> list[list[int]]:
        """Answer requests in one batch."""
        for request in requests:
            self.served.engine.add(request)
        while self.served.engine.has_work:
            assert [output.error for output in self.served.engine.step() if output.error] == []
        return [request.output_ids for request in requests]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vision]:
    folder = tmp_path_factory.mktemp("vision")
    save_tiny_vision_model(folder / BASE)
    for seed, names in enumerate(NAMES):
        save_vision_adapter(folder / f"a{seed}", seed=seed, names=names)
    settings = WorkerSettings(
        engine="vllm",
        model=str(folder / BASE),
        device="cpu",
        dtype="float32",
        max_num_seqs=16,
        max_model_len=256,
        kv_cache_mb=64,
        max_lora_rank=8,
        adapter_store=folder / "store",
    )
    set_environment(settings, os.environ)
    from worker.engine_vllm.load_model import load_vllm

    report = partial(logging.getLogger(__name__).error, "vLLM's engine core has ended")
    served = load_vllm(settings, on_lost=report)
    versions: dict[str, AdapterVersion | None] = {BASE: None}
    for seed in range(len(NAMES)):
        versions[f"a{seed}"] = resident(served, f"a{seed}", folder / f"a{seed}")
    yield Vision(folder, served, versions)
    served.close()


def test_the_worker_says_that_it_serves_images(vision: Vision) -> None:
    assert vision.served.base.takes_images
    assert vision.served.serves.features == {Feature.IMAGES}


def test_answers_to_images_equal_those_of_transformers_in_one_batch(vision: Vision) -> None:
    chats = [("what?", ("red",)), ("compare", ("blue", "red", "wide")), ("only text", ())]
    asked = [(name, text, images) for name in vision.versions for text, images in chats]
    requests = [
        vision.request(name, vision.job(text, *images), number)
        for number, (name, text, images) in enumerate(asked)
    ]
    answers = vision.answers(requests)
    for (name, text, images), request, answer in zip(asked, requests, answers, strict=True):
        prompt, expected = reference(vision.folder, name, text, images)
        assert (name, images, request.prompt_ids) == (name, images, prompt)
        assert (name, images, answer) == (name, images, expected)


def test_the_tokens_of_an_image_count_as_the_prompts(vision: Vision) -> None:
    text = len(vision.request(BASE, vision.job("x"), 0).prompt_ids)
    with_two = len(vision.request(BASE, vision.job("x", "red", "blue"), 0).prompt_ids)
    assert with_two == text + 2 * TOKENS_PER_IMAGE


def test_a_prompt_with_an_image_is_reused_only_for_the_same_image(vision: Vision) -> None:
    long = "a long text that fills more than one block of the cache, " * 3
    first, other = (vision.request(BASE, vision.job(long, name), 0) for name in ("red", "blue"))
    again = vision.request(BASE, vision.job(long, "red"), 1)
    answers = [vision.answers([request])[0] for request in (first, other, again)]
    assert answers[0] == answers[2] != answers[1]
    assert other.num_cached_tokens == 0 < again.num_cached_tokens


@pytest.mark.parametrize("end", [30, 200])
def test_a_truncated_image_is_refused(
    vision: Vision, monkeypatch: pytest.MonkeyPatch, end: int
) -> None:
    monkeypatch.setitem(FILES, "cut", image_file(size=(200, 200))[:end])
    with pytest.raises(JobFailed, match="the images can't be read") as failed:
        vision.request(BASE, vision.job("x", "cut"), 0)
    assert failed.value.error.status == 400


def test_marks_of_images_in_a_clients_text_do_no_harm(vision: Vision) -> None:
    marked = [vision.job(f"{IMAGE * 3} x"), vision.job(f"{IMAGE} x", "red")]
    answers = vision.answers([vision.request(BASE, job, 0) for job in marked])
    assert [len(answer) for answer in answers] == [NUM_TOKENS] * 2


@torch.inference_mode()
def reference(
    folder: Path, name: str, text: str, images: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt and of transformers' greedy answer."""
    parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
    processor = AutoProcessor.from_pretrained(folder / BASE)
    rendered = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    pictures = [Image.open(BytesIO(FILES[name])).convert("RGB") for name in images]
    inputs = processor(
        text=rendered, images=pictures or None, add_special_tokens=False, return_tensors="pt"
    )
    model = tiny_vision_model()
    if name != BASE:
        adapter = folder / f"{name} of transformers"
        save_vision_adapter(adapter, seed=int(name[1:]), names=LATEST)
        model = with_adapter(model, adapter)
    config = GenerationConfig(
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    out = model.generate(**inputs, generation_config=config)
    best = torch.cat(out.logits).topk(2).values
    gap = float((best[:, 0] - best[:, 1]).min())
    assert gap > MAX_GAP, f"choose another prompt: two tokens of this answer have a gap of {gap}"
    prompt: list[int] = inputs["input_ids"][0].tolist()
    return prompt, out.sequences[0, len(prompt) :].tolist()
