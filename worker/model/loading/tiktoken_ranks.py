"""Converts files of tiktoken to the library `tokenizers`.

Each line of such a file has a token, in base64, and its rank, which is also its id. The converted
tokenizer splits a text into the same pieces as `tiktoken.Encoding.encode`
(https://github.com/openai/tiktoken).
"""

import base64
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from worker.upstream.tokenizer_files import bytes_to_unicode


def read_tiktoken(path: Path, pattern: str) -> Tokenizer:
    """Return the tokenizer that a file of ranks describes.

    The regular expression `pattern` splits a text before pairs of tokens are merged.

    Raises:
        ValueError: the file is malformed.
    """
    lines = [line.split() for line in path.read_bytes().splitlines()]
    ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    if sorted(ranks.values()) != list(range(len(lines))):
        raise ValueError("its ranks aren't 0, 1, 2, ...")
    character = bytes_to_unicode()
    names = {token: "".join(character[byte] for byte in token) for token in ranks}
    pairs = [
        (rank, ranks[token[:cut]], ranks[token[cut:]], names[token[:cut]], names[token[cut:]])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={names[token]: rank for token, rank in ranks.items()},
            merges=[(left, right) for *_, left, right in sorted(pairs)],
            ignore_merges=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
