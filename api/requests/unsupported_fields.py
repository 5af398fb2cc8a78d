"""Fields of OpenAI's API and related APIs that the server doesn't support. Pure.

Clients may send such a field with a neutral value, which has no effect. Any other value is refused
with an error that names the field, because an answer that silently ignores the value would be
wrong. If a field of another server does the same as a supported field, it is refused, too, because
clients would otherwise get an answer without this effect. The module `ignored_fields` lists the
known fields that are accepted with every value.
"""

import json
from collections.abc import Mapping
from typing import Any

from shared.errors import ErrorCode, JobError, JobFailed

NeutralValues = Mapping[str, tuple[Any, ...]]
"""For each unsupported field, its neutral values. Null is always neutral as well."""

COMMON: NeutralValues = {
    # OpenAI and providers of its API
    "max_output_tokens": (),
    "models": ([],),
    "moderation": (),
    "safe_prompt": (False,),
    "stop_sequences": ([],),
    "top_a": (0,),
    "transforms": ([],),
    # vLLM
    "early_stopping": (False,),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "repetition_detection": (),
    "structural_tag": (),
    "return_prompt_text": (False,),
    "spaces_between_special_tokens": (True,),
    "thinking_token_budget": (),
    "truncation_side": ("left",),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
    # SGLang and LMDeploy
    "custom_logit_processor": (),
    "image_data": (),
    "input_ids": (),
    "lora_path": (),
    "no_stop_trim": (False,),
    "repetition_ngram_size": (0,),
    "repetition_ngram_threshold": (0,),
    "return_hidden_states": (False,),
    "return_logprob": (False,),
    "return_prompt_token_ids": (False,),
    "return_routed_experts": (False,),
    "stop_regex": ([], ""),
    "top_logprobs_num": (0,),
    # llama.cpp
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "lora": ([],),
    "mirostat": (0,),
    "n_probs": (0,),
    "return_tokens": (False,),
    "samplers": (),
    "typical_p": (1,),
    "xtc_probability": (0,),
    # LoRAX and TGI
    "adapter_id": (),
    "adapter_source": (),
    "do_sample": (True,),
    "merged_adapters": (),
}
"""Unsupported fields of both /v1/chat/completions and /v1/completions."""

CHAT: NeutralValues = {
    **COMMON,
    # OpenAI
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "instructions": ("",),
    "modalities": (["text"],),
    "reasoning": ({},),
    "verbosity": ("medium",),
    "web_search_options": (),
    # other servers and providers
    "add_special_tokens": (False,),
    "chat_template": (),
    "do_preprocess": (True,),
    "documents": ([],),
    "prompt": (),
    "system": ("", []),
    "thinking": (),
}
"""Unsupported fields of /v1/chat/completions."""

COMPLETIONS: NeutralValues = {
    **COMMON,
    # OpenAI
    "best_of": (1,),  # `n` is neutral, too: the server then returns all answers
    "messages": (),
    "suffix": ("",),
    "tools": ([],),
    "top_logprobs": (0,),
    # vLLM
    "add_special_tokens": (True,),
    "prompt_embeds": (),
}
"""Unsupported fields of /v1/completions."""

MESSAGE: NeutralValues = {
    "audio": (),
    "function_call": (),
    "partial": (False,),
    "prefix": (False,),
}
"""Unsupported fields of messages.

Clients may send `audio` and `function_call` as null when they return a generated message. Mistral's
and DeepSeek's `prefix`, and Moonshot's `partial`, ask the model to continue the message.
"""

INSTEAD: Mapping[str, str] = {
    "adapter_id": "model",
    "function_call": "tool_choice",
    "do_preprocess": "POST /v1/completions",
    "functions": "tools",
    "instructions": "a message with the role system",
    "lora_path": "model",
    "max_output_tokens": "max_tokens",
    "messages": "prompt, or POST /v1/chat/completions",
    "prompt": "messages, or POST /v1/completions",
    "reasoning": "reasoning_effort",
    "return_logprob": "logprobs",
    "return_prompt_token_ids": "return_token_ids",
    "stop_sequences": "stop",
    "system": "a message with the role system",
    "tools": "POST /v1/chat/completions",
    "thinking": "reasoning_effort or chat_template_kwargs",
    "top_logprobs": "logprobs with a number",
    "top_logprobs_num": "top_logprobs, or logprobs of a completion",
    "truncate_prompt_tokens": "max_tokens_per_doc",
}
"""For some unsupported fields, the fields or values that clients can send instead."""


def drop_unsupported(
    raw: Mapping[str, Any],
    unsupported: NeutralValues,
    *,
    path: str = "",
    instead: Mapping[str, str] = INSTEAD,
) -> dict[str, Any]:
    """Return `raw` without its unsupported fields.

    `instead` says for some of them what clients can send instead.

    Raises:
        JobFailed: an unsupported field has a value that isn't neutral. The error names the field,
            preceded by `path`.
    """
    for name in unsupported.keys() & raw.keys():
        if not _is_neutral(raw[name], unsupported[name]):
            hint = f"; send {instead[name]} instead" if name in instead else ""
            raise JobFailed(_unsupported_error(path + name, unsupported[name], hint))
    return {name: value for name, value in raw.items() if name not in unsupported}


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # False == 0 in Python, but not in JSON.
    return value is None or any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral
    )


def _unsupported_error(param: str, neutral: tuple[Any, ...], hint: str) -> JobError:
    # `best_of` may have the same neutral value twice.
    allowed = " or ".join(dict.fromkeys(["null", *(json.dumps(value) for value in neutral)]))
    message = f"{param} isn't supported; leave it out, or send {allowed}{hint}"
    return JobError(code=ErrorCode.UNSUPPORTED_PARAMETER, message=message, param=param)
