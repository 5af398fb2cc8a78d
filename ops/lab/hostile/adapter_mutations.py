"""Mutations of a good adapter: of its configuration, the header of its weights, and its tensors."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

SLOW_PATTERNS = (
    r"(([a-z0-9_.]+)+)+#",
    r"(.*)*(.*)*(.*)*#",
    r"(a|a|[a-z._0-9])*#",
    r"(?!.*x)(([a-z.]+)+)+#",
    r"(.)\1*(([a-z.]+)+)+#",
    r"((.{0,30}){30}){30}",
    r".*a.{90}b" * 40,
    "|".join(f"(?:{chr(97 + i % 26)}.*){{9}}" for i in range(300)),
)
TEXTS = ("", "é" * 99, "\u0000", "\ud7ff", "\U0001f99c" * 9, "." * 500, "lora_A" * 200, "../../x")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 16, 10**6, 2**63, 10**400, 1e308, 5e-324, -0.0),
    *(float("nan"), float("inf"), [], {}, [[]], ["q_proj"], "q_proj", "all-linear"),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """Contents of an adapter's files as the client sends them, and the changes made to them."""

    config: dict[str, Any]
    header: dict[str, Any]
    data: bytes
    changes: tuple[str, ...] = ()
    config_text: bytes | None = None
    """Text that replaces `config`."""
    header_text: bytes | None = None
    """Text that replaces `header`."""
    size: int | None = None
    """Wrong length of the header that the file states; None if the file states the right one."""
    extra: dict[str, str] = field(default_factory=dict)
    """Further metadata of the weights."""

    def config_bytes(self) -> bytes:
        """Return the text of adapter_config.json."""
        return json.dumps(self.config).encode() if self.config_text is None else self.config_text

    def weights(self, config: str | None) -> bytes:
        """Return the weights file. Its metadata contains the text `config` unless this is None."""
        text = self.header_text
        if text is None:
            metadata = self.extra | ({} if config is None else {"adapter_config": config})
            text = json.dumps({"__metadata__": metadata, **self.header}).encode()
        size = len(text) if self.size is None else self.size
        return struct.pack("<Q", size & (2**64 - 1)) + text + self.data


Mutation = Callable[[random.Random, Sent], Sent]


def read_adapter(config: bytes, weights: bytes) -> Sent:
    """Return the valid adapter whose files have these contents, for mutations."""
    (size,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    header.pop("__metadata__", None)
    return Sent(json.loads(config), header, weights[8 + size :])


def mutated(rng: random.Random, good: Sent) -> Sent:
    """Return `good` with one to three changes."""
    sent = good
    for mutation in rng.sample(MUTATIONS, rng.choice((1, 1, 1, 2, 3))):
        sent = mutation(rng, sent)
        sent = replace(sent, changes=(*sent.changes, mutation.__name__))
    return sent


def field_value(rng: random.Random, sent: Sent) -> Sent:
    """Set a field of the configuration to another value."""
    value = rng.choice((*VALUES, *TEXTS, *SLOW_PATTERNS))
    return replace(sent, config=sent.config | {rng.choice([*sent.config, "new_field"]): value})


def pattern(rng: random.Random, sent: Sent) -> Sent:
    """Put a slow or unsupported regular expression into the configuration."""
    regex = rng.choice(SLOW_PATTERNS)
    fields: dict[str, Any] = {
        "target_modules": regex,
        "exclude_modules": regex,
        "modules_to_save": [regex],
        "rank_pattern": {regex: 4},
        "alpha_pattern": {regex: 4},
        "layers_pattern": [regex],
    }
    name = rng.choice([*fields])
    more = {"layers_to_transform": [0]} if name == "layers_pattern" else {}
    return replace(sent, config=sent.config | {name: fields[name]} | more)


def many_items(rng: random.Random, sent: Sent) -> Sent:
    """Put a very long list or object into the configuration."""
    number = rng.choice((100, 5_000, 60_000))
    names = [f"m{i}" for i in range(number)]
    value = rng.choice((names, [*range(number)], dict.fromkeys(names, 1), [*map(list, names)]))
    name = rng.choice(
        ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform",
         "rank_pattern", "alpha_pattern", "trainable_token_indices")
    )  # fmt: skip
    return replace(sent, config=sent.config | {name: value})


def base_name(rng: random.Random, sent: Sent) -> Sent:
    """Give the base model a very long name."""
    name = rng.choice(("a" + "-hf" * 300_000, "/" * 900_000, "models--" * 9_000, "-" * 900_000))
    return replace(sent, config=sent.config | {"base_model_name_or_path": name})


def nested(rng: random.Random, sent: Sent) -> Sent:
    """Nest arrays or objects deeply, in the configuration or in the header."""
    depth = rng.choice((50, 127, 500, 50_000))
    text = b"[" * depth + b"]" * depth
    if rng.random() < 0.5:
        return replace(sent, config_text=b'{"peft_type":"LORA","r":' + text + b"}")
    return replace(sent, header_text=b'{"x":' + text + b"}")


def flipped_config(rng: random.Random, sent: Sent) -> Sent:
    """Flip bits of the configuration's text."""
    return replace(sent, config_text=_flipped(rng, sent.config_bytes()))


def duplicate_keys(rng: random.Random, sent: Sent) -> Sent:
    """Repeat a key of the configuration or of the header."""
    if rng.random() < 0.5:
        text = sent.config_bytes()[:-1] + b',"r":8,"r":' + rng.choice((b"16", b"-1", b"{}")) + b"}"
        return replace(sent, config_text=text)
    name = rng.choice([*sent.header])
    text = json.dumps(sent.header).encode()
    entry = json.dumps({name: rng.choice([*sent.header.values()])}).encode()[1:]
    return replace(sent, header_text=text[:-1] + b"," + entry)


def flipped_header(rng: random.Random, sent: Sent) -> Sent:
    """Flip bits of the header's text."""
    return replace(sent, header_text=_flipped(rng, json.dumps(sent.header).encode()))


def header_size(rng: random.Random, sent: Sent) -> Sent:
    """Declare a wrong length for the header."""
    size = len(json.dumps(sent.header))
    return replace(sent, size=rng.choice((0, 1, size - 1, size + 1, 2 * size, 1 << 24, 2**63)))


def tensor_entry(rng: random.Random, sent: Sent) -> Sent:
    """Change the shape, dtype or place of a tensor in the header."""
    name = rng.choice([*sent.header])
    entry = dict(sent.header[name])
    changes: dict[str, Any] = {
        "shape": rng.choice((entry["shape"][::-1], [], [2**62, 2**62], [10**40], [-1], [0] * 999)),
        "dtype": rng.choice(("F16", "F64", "I8", "F8_E4M3", "nothing", "F" * 9999, 3, None)),
        "data_offsets": rng.choice(([0, 0], [4, 2], [0, 2**63], [0], "ab", [-4, 4], [0, 10**30])),
    }
    key = rng.choice([*changes])
    return replace(sent, header=sent.header | {name: entry | {key: changes[key]}})


def more_tensors(rng: random.Random, sent: Sent) -> Sent:
    """Add many empty tensors, or tensors with strange names."""
    number = rng.choice((1, 500, 10_000, 60_000))
    name = rng.choice(
        (
            *("base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight", "x{}", "é{}"),
            *("." * 400 + "{}", "lora_A." * 60 + "{}", "y" * 2000 + "{}"),
        )
    )
    number = min(number, (6 << 20) // len(name))
    end = len(sent.data)
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    return replace(sent, header=sent.header | {name.format(i): entry for i in range(number)})


def missing_tensor(rng: random.Random, sent: Sent) -> Sent:
    """Remove a tensor, or give it another name."""
    name = rng.choice([*sent.header])
    rest = {each: entry for each, entry in sent.header.items() if each != name}
    renamed = rng.choice((*TEXTS, name.replace("lora_A", "lora_B"), name.upper()))
    return replace(sent, header=rest if rng.random() < 0.5 else rest | {renamed: sent.header[name]})


def flipped_data(rng: random.Random, sent: Sent) -> Sent:
    """Flip bits of the tensors."""
    return replace(sent, data=_flipped(rng, sent.data))


def special_values(rng: random.Random, sent: Sent) -> Sent:
    """Fill a tensor with NaN, infinity, zeros, or very large or small values."""
    name = rng.choice([*sent.header])
    start, stop = sent.header[name]["data_offsets"]
    if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop <= 1 << 30):
        return sent
    unit = rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", bytes(4), b"\xff\xff\x7f\x7f",
                       b"\x01\x00\x00\x00"))  # fmt: skip
    filled = (unit * ((stop - start) // 4 + 1))[: stop - start]
    return replace(sent, data=sent.data[:start] + filled + sent.data[stop:])


def data_size(rng: random.Random, sent: Sent) -> Sent:
    """Truncate the tensors' data, or append bytes to it."""
    if rng.random() < 0.5:
        return replace(sent, data=sent.data[: rng.randrange(len(sent.data))])
    return replace(sent, data=sent.data + bytes(rng.choice((1, 4096, 1 << 20))))


def served_setting(rng: random.Random, sent: Sent) -> Sent:
    """Change a setting in such a way that the adapter can still be served."""
    changes: tuple[dict[str, Any], ...] = (
        {"lora_alpha": rng.choice((0.001, 1, 3, 1000))},
        {"use_rslora": True},
        {"alpha_pattern": {r".*\.1[0-9]\..*q_proj": 7, "v_proj": 3}},
        {"target_modules": r".*(q|v)_proj"},
        {"target_modules": r"(?:.*\.)?(?:q_proj|v_proj)$"},
        {"exclude_modules": ["k_proj"]},
        {"lora_dropout": 0.5, "revision": "x"},
    )
    return replace(sent, config=sent.config | rng.choice(changes))


MUTATIONS: tuple[Mutation, ...] = (
    *(field_value, pattern, many_items, base_name, nested, flipped_config, duplicate_keys),
    *(flipped_header, header_size, tensor_entry, more_tensors, missing_tensor),
    *(flipped_data, special_values, data_size, served_setting, served_setting),
)


def _flipped(rng: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)
