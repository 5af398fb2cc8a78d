"""Converts BPE models of sentencepiece to the library `tokenizers`.

The converted tokenizer splits the text between two special tokens into the same pieces as
`SentencePieceProcessor.encode` (https://github.com/google/sentencepiece).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from worker.upstream.tokenizer_files import import_protobuf

_BPE = 2
"""Value of sentencepiece's `TrainerSpec.ModelType` for BPE."""
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
"""Values of sentencepiece's `SentencePiece.Type`, the kind of a piece."""


def read_sentencepiece(path: Path) -> Tokenizer:
    """Return the tokenizer in a `tokenizer.model`. Its control tokens are special tokens.

    Raises:
        ValueError: the file is malformed, or isn't a BPE model.
    """
    proto = _parsed(path)
    names = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    kinds = {piece.type for piece in proto.pieces}
    if proto.trainer_spec.model_type != _BPE:
        raise ValueError("it isn't a BPE model")
    if len(names) < len(proto.pieces) or kinds - {
        _NORMAL,
        _UNKNOWN,
        _CONTROL,
        _USER_DEFINED,
        _BYTE,
    }:
        raise ValueError("it has equal or unused pieces")
    own = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=names,
            merges=_merges(proto),
            unk_token=next(p.piece for p in proto.pieces if p.type == _UNKNOWN),
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
            ignore_merges=bool(own),
        )
    )
    tokenizer.normalizer = normalizers.Sequence(list(_normalizers(proto.normalizer_spec)))
    if own:  # sentencepiece never merges or cuts these pieces
        pattern = Regex("|".join(map(re.escape, sorted(own, key=len, reverse=True))))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [p.piece for p in proto.pieces if p.type in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return tokenizer


def _parsed(path: Path) -> Any:
    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's implementations raise different types
        raise ValueError(f"it isn't a model of sentencepiece ({error})") from error
    if not proto.pieces:
        raise ValueError("it has no pieces")
    return proto


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Return the pairs of pieces that can be merged to a piece, in order of that piece's score.

    The pairs with the best score come first.
    """
    normal = {p.piece: (-p.score, n) for n, p in enumerate(proto.pieces) if p.type == _NORMAL}
    ranked = [
        (*rank, name[:cut], name[cut:])
        for name, rank in normal.items()
        for cut in range(1, len(name))
        if name[:cut] in normal and name[cut:] in normal
    ]
    return [(left, right) for *_, left, right in sorted(ranked)]


def _normalizers(spec: Any) -> Iterator[normalizers.Normalizer]:
    """Yield the normalisation steps that sentencepiece applies to a text before it splits it."""
    if spec.precompiled_charsmap:
        yield normalizers.Precompiled(spec.precompiled_charsmap)
    if spec.remove_extra_whitespaces:
        yield normalizers.Replace(Regex(r"\A +| +\z"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if spec.add_dummy_prefix:
        yield normalizers.Prepend("▁")
    if spec.escape_whitespaces:
        yield normalizers.Replace(" ", "▁")
