"""Tokenizers with a few hundred tokens: one byte-level, one SentencePiece."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EOS = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role ' ~ m.role) }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog. hello world! How are you?",
    "你好、世界。今天天气很好。",
    "SELECT name FROM users WHERE id = 1;",
    "naïve café — “quotes”",
]


def byte_level_tokenizer(
    vocab_size: int = 400, *, chat_template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """Return a tokenizer like GPT-2's, in which a character may be split between tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|im_start|>", EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, chat_template=chat_template
    )


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like Llama 2's: spaces are `▁`, unknown characters `<0xNN>` tokens."""
    special = ["<unk>", "<s>", "</s>"]
    letters = sorted({c for text in CORPUS for c in text.replace(" ", "▁") if c < "\u3000"})
    words = ["▁the", "▁q", "lo", "▁w", "or", "你好", "▁▁"]
    parts = sorted({w[:i] for w in words for i in range(1, len(w))} | set("qtheloworld你好▁"))
    names = special + [f"<0x{b:02X}>" for b in range(256)]
    names += [n for n in dict.fromkeys([*letters, *parts, *words]) if n not in names]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [(w[:i], w[i:]) for w in words for i in range(1, len(w)) if w[i:] in vocab]
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
