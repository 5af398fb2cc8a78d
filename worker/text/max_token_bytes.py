"""Computes the maximum number of prompt bytes that one token can represent.

With this bound, a front end can reject a prompt that is too long for the context without tokenizing
the prompt. There is no such bound for a tokenizer that may drop text.
"""

from collections.abc import Iterable
from typing import Any

import orjson
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from shared.context_length import RARE_BYTES, SPACE_MARK
from worker.text.detokenizer import BYTE_OF_CHARACTER
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat

_BYTE_TOKENS = {name for name, byte in BYTE_OF_CHARACTER.items() if byte not in RARE_BYTES}
_FALLBACK_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_PROBE = (
    {"role": "user", "content": "probe of the first turn"},
    {"role": "assistant", "content": "probe of the answer"},
    {"role": "user", "content": "probe of the last turn"},
)


def max_token_bytes(hf_tokenizer: Any) -> int:
    """Return the maximum number of bytes, as counted by `least_bytes`, that a token can represent.

    Return 0 if no bound is known. A bound is known only for BPE tokenizers whose tokens cover every
    byte of a text, and only if the chat template renders every user message.
    """
    if not _is_unmodified_bpe(hf_tokenizer) or not _renders_every_user_message(hf_tokenizer):
        return 0
    backend = hf_tokenizer.backend_tokenizer
    strips_spaces = any(token.lstrip or token.rstrip for token in _added_tokens(backend))
    if strips_spaces or not _keeps_text(backend):
        return 0
    sizes = _model_token_bytes(backend)
    return max([*sizes, *_added_token_bytes(backend)]) if sizes else 0


def _is_unmodified_bpe(hf_tokenizer: Any) -> bool:
    """Return whether `hf_tokenizer` is a BPE tokenizer that doesn't modify texts."""
    # CodeLlama's class, for example, removes marks from texts.
    kind, plain = type(hf_tokenizer), PreTrainedTokenizerFast
    return (
        isinstance(hf_tokenizer, plain)
        and kind.__call__ is plain.__call__
        and kind._encode_plus is plain._encode_plus
        and isinstance(hf_tokenizer.backend_tokenizer.model, BPE)
    )


def _renders_every_user_message(hf_tokenizer: Any) -> bool:
    if not hf_tokenizer.chat_template:
        return True
    try:
        text = render_chat(hf_tokenizer, _PROBE)
    except TEMPLATE_ERRORS:
        return False
    return all(message["content"] in text for message in _PROBE if message["role"] == "user")


def _keeps_text(backend: Any) -> bool:
    return (
        backend.truncation is None
        and all(map(_normalizer_keeps_text, _steps(backend.normalizer)))
        and all(map(_splitter_keeps_text, _steps(backend.pre_tokenizer)))
        and all(map(_processor_keeps_text, _steps(backend.post_processor)))
    )


def _normalizer_keeps_text(step: dict[str, Any]) -> bool:
    if step["type"] == "Replace":
        return bool(step["pattern"] == {"String": " "} and step["content"] == SPACE_MARK)
    return step["type"] in ("NFC", "Prepend")


def _splitter_keeps_text(step: dict[str, Any]) -> bool:
    if step["type"] in ("Split", "Punctuation"):
        return bool(step["behavior"] != "Removed")
    if step["type"] == "Metaspace":
        return bool(step["replacement"] == SPACE_MARK)
    return step["type"] in ("ByteLevel", "Digits")


def _processor_keeps_text(step: dict[str, Any]) -> bool:
    if step["type"] == "TemplateProcessing":
        return any(piece.get("Sequence", {}).get("id") == "A" for piece in step["single"])
    return step["type"] in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _steps(component: Any) -> list[dict[str, Any]]:
    """Return the steps of one component of the tokenizer, in the tokenizer's JSON form."""
    return _flatten(orjson.loads(component.__getstate__())) if component is not None else []


def _flatten(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] != "Sequence":
        return [step]
    inner = next(value for value in step.values() if isinstance(value, list))
    return [leaf for each in inner for leaf in _flatten(each)]


def _model_token_bytes(backend: Any) -> list[int]:
    """Return the sizes of all BPE tokens in bytes, or [] if the model can't encode every text."""
    model, vocab = backend.model, backend.get_vocab(with_added_tokens=False)
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return []
    splitters = [step["type"] for step in _steps(backend.pre_tokenizer)]
    if splitters[-1:] == ["ByteLevel"]:
        # Each character of a token's name represents one byte.
        return [len(name) for name in vocab] if vocab.keys() >= _BYTE_TOKENS else []
    if model.byte_fallback and "ByteLevel" not in splitters and vocab.keys() >= _FALLBACK_TOKENS:
        return [len(name.replace(SPACE_MARK, " ").encode()) for name in vocab]
    return []


def _added_tokens(backend: Any) -> Iterable[Any]:
    tokens: dict[int, Any] = backend.get_added_tokens_decoder()
    return tokens.values()


def _added_token_bytes(backend: Any) -> list[int]:
    """Return the sizes of all added tokens in bytes, both before and after normalization."""
    contents = [token.content for token in _added_tokens(backend)]
    if backend.normalizer is not None:
        normalize = backend.normalizer.normalize_str
        contents += [
            normalize(token.content) for token in _added_tokens(backend) if token.normalized
        ]
    return [len(content.encode()) for content in contents]
