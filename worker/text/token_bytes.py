"""How many bytes of a prompt one token can stand for.

A prompt with more bytes than the context's tokens can stand for is too long, which a front end
finds out without a tokenizer. A tokenizer that may drop text has no such number.
"""

from collections.abc import Iterable
from typing import Any

import orjson
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from shared.context_length import RARE_BYTES, SPACE_MARK
from worker.text.detokenizer import BYTE_OF_CHARACTER
from worker.text.tokenizer import TEMPLATE_ERRORS

_BYTE_TOKENS = {name for name, byte in BYTE_OF_CHARACTER.items() if byte not in RARE_BYTES}
_FALLBACK_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_PROBE = (
    {"role": "user", "content": "probe of the first turn"},
    {"role": "assistant", "content": "probe of the answer"},
    {"role": "user", "content": "probe of the last turn"},
)


def max_token_bytes(hf_tokenizer: Any) -> int:
    """Return the most bytes, as `least_bytes` counts them, that one token can stand for.

    It is 0 where no such number is known to hold: for any tokenizer but BPE whose tokens cover all
    bytes of a text, and where the chat template leaves out turns of the user.
    """
    if not _is_plain(hf_tokenizer) or not _shows_every_user_turn(hf_tokenizer):
        return 0
    backend = hf_tokenizer.backend_tokenizer
    if not _keeps_text(backend) or any(_swallows(token) for token in _added(backend)):
        return 0
    sizes = _model_token_bytes(backend)
    return max([*sizes, *_added_token_bytes(backend)]) if sizes else 0


def _is_plain(hf_tokenizer: Any) -> bool:
    """Whether it is BPE that gets texts as they are; CodeLlama's class takes marks out of them."""
    kind, plain = type(hf_tokenizer), PreTrainedTokenizerFast
    return (
        isinstance(hf_tokenizer, plain)
        and kind.__call__ is plain.__call__
        and kind._encode_plus is plain._encode_plus
        and isinstance(hf_tokenizer.backend_tokenizer.model, BPE)
    )


def _shows_every_user_turn(hf_tokenizer: Any) -> bool:
    if not hf_tokenizer.chat_template:
        return True
    try:
        text = hf_tokenizer.apply_chat_template(
            list(_PROBE), tokenize=False, add_generation_prompt=True
        )
    except TEMPLATE_ERRORS:
        return False
    return all(turn["content"] in text for turn in _PROBE if turn["role"] == "user")


def _keeps_text(backend: Any) -> bool:
    return (
        backend.truncation is None
        and all(map(_keeps_in_normalizing, _parts(backend.normalizer)))
        and all(map(_keeps_in_splitting, _parts(backend.pre_tokenizer)))
        and all(map(_keeps_in_processing, _parts(backend.post_processor)))
    )


def _keeps_in_normalizing(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":
        return bool(part["pattern"] == {"String": " "} and part["content"] == SPACE_MARK)
    return part["type"] in ("NFC", "Prepend")


def _keeps_in_splitting(part: dict[str, Any]) -> bool:
    if part["type"] in ("Split", "Punctuation"):
        return bool(part["behavior"] != "Removed")
    if part["type"] == "Metaspace":
        return bool(part["replacement"] == SPACE_MARK)
    return part["type"] in ("ByteLevel", "Digits")


def _keeps_in_processing(part: dict[str, Any]) -> bool:
    if part["type"] == "TemplateProcessing":
        return any(piece.get("Sequence", {}).get("id") == "A" for piece in part["single"])
    return part["type"] in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _parts(component: Any) -> list[dict[str, Any]]:
    """The steps of one stage of the tokenizer, as its JSON describes them."""
    return _flat(orjson.loads(component.__getstate__())) if component is not None else []


def _flat(part: dict[str, Any]) -> list[dict[str, Any]]:
    if part["type"] != "Sequence":
        return [part]
    inner = next(value for value in part.values() if isinstance(value, list))
    return [leaf for each in inner for leaf in _flat(each)]


def _model_token_bytes(backend: Any) -> list[int]:
    """Bytes of each of the model's own tokens; empty if some text has no tokens."""
    model, vocab = backend.model, backend.get_vocab(with_added_tokens=False)
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return []
    splitters = [part["type"] for part in _parts(backend.pre_tokenizer)]
    if splitters[-1:] == ["ByteLevel"]:
        # One character of a token's name is one byte.
        return [len(name) for name in vocab] if vocab.keys() >= _BYTE_TOKENS else []
    if model.byte_fallback and "ByteLevel" not in splitters and vocab.keys() >= _FALLBACK_TOKENS:
        return [len(name.replace(SPACE_MARK, " ").encode()) for name in vocab]
    return []


def _added(backend: Any) -> Iterable[Any]:
    tokens: dict[int, Any] = backend.get_added_tokens_decoder()
    return tokens.values()


def _swallows(token: Any) -> bool:
    """Whether the token takes any amount of white space beside it."""
    return bool(token.lstrip or token.rstrip)


def _added_token_bytes(backend: Any) -> list[int]:
    """Bytes of each added token; some are found in the text as it is normalized."""
    contents = [token.content for token in _added(backend)]
    if backend.normalizer is not None:
        normalize = backend.normalizer.normalize_str
        contents += [normalize(token.content) for token in _added(backend) if token.normalized]
    return [len(content.encode()) for content in contents]
