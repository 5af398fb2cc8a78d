"""Which tensors an adapter must have and may have, and of what shape; all others are refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.target_modules import Trained
from worker.lora.checkpoint.tensor_file import FLOATS, TensorInfo
from worker.lora.checkpoint.tensor_names import Part, TensorKey, parse_name


@dataclass(frozen=True, slots=True)
class Expected:
    """What a tensor must be like."""

    shape: tuple[int, ...]
    is_required: bool = True


def expected_tensors(
    config: AdapterConfig, base: BaseModules, trained: Trained
) -> dict[TensorKey, Expected]:
    """What the file of an adapter may hold that changes the modules `trained`.

    Raises:
        AdapterRejected: it asks for something that PEFT doesn't have.
    """
    expected = _of_base(base, trained)
    for module in trained.targets:
        of_target = _of_linear if module in base.linears else _of_embedding
        expected |= {TensorKey(module, part): e for part, e in of_target(config, base, module)}
    for module in trained.saved:
        expected |= {TensorKey(module, part): e for part, e in _of_saved(base, module)}
    for source in trained.tokens.values():
        width = base.tables[source.module].shape[1]
        expected[TensorKey(source.module, Part.TOKENS)] = Expected((len(source.ids), width))
    return expected


def _of_base(base: BaseModules, trained: Trained) -> dict[TensorKey, Expected]:
    """What may be there of the base's own parameters: copies of its tables, and trained biases."""
    expected: dict[TensorKey, Expected] = {}
    for module, table in base.tables.items():
        expected[copy_key(module, trained)] = Expected(table.shape, False)
    for module, weight in base.weights.items():
        if weight.bias is not None:
            part = Part.BASE_BIAS if module in trained.targets else Part.BIAS
            expected[TensorKey(module, part)] = Expected(tuple(weight.bias.shape), False)
    for module, sizes in base.norms.items():
        if "bias" in sizes:
            expected[TensorKey(module, Part.BIAS)] = Expected((sizes["bias"],), False)
    return expected


def copy_key(module: str, trained: Trained) -> TensorKey:
    """As what PEFT adds the base's own embedding or head `module` to an adapter's file."""
    return TensorKey(module, Part.BASE_WEIGHT if module in trained.targets else Part.WEIGHT)


def match_tensors(
    header: Mapping[str, TensorInfo], expected: Mapping[TensorKey, Expected]
) -> dict[TensorKey, str]:
    """The name of each tensor in the file.

    Raises:
        AdapterRejected: one is missing, unknown, there twice, or of another shape or dtype.
    """
    found: dict[TensorKey, str] = {}
    for name, info in header.items():
        key = parse_name(name)
        if key is None or key not in expected:
            raise AdapterRejected(
                f"tensor {name} belongs to no module that adapter_config.json trains"
            )
        if key in found:
            raise AdapterRejected(f"tensors {found[key]} and {name} are for the same module")
        _check(name, info, expected[key].shape)
        found[key] = name
    for key, wanted in expected.items():
        if wanted.is_required and key not in found:
            raise AdapterRejected(f"tensor {key} is missing")
    return found


def _of_linear(
    config: AdapterConfig, base: BaseModules, module: str
) -> Iterator[tuple[Part, Expected]]:
    shape, rank = base.linears[module], config.rank(module)
    yield Part.LORA_A, Expected((rank, shape.in_features))
    yield Part.LORA_B, Expected((shape.out_features, rank))
    for field in "lora_bias", "use_dora":
        if getattr(config, field) and module not in base.weights:
            raise AdapterRejected(f"{field}=True isn't served on {module}: its weight is quantised")
    if config.lora_bias:
        yield Part.LORA_B_BIAS, Expected((shape.out_features,))
    if config.use_dora:
        yield Part.MAGNITUDE, Expected((shape.out_features,))


def _of_embedding(
    config: AdapterConfig, base: BaseModules, module: str
) -> Iterator[tuple[Part, Expected]]:
    assert base.embedding is not None
    if config.lora_bias:
        raise AdapterRejected(f"lora_bias=True isn't served on {module}: PEFT has no such")
    (vocab_size, dim), rank = base.embedding.weight.shape, config.rank(module)
    yield Part.EMBEDDING_A, Expected((rank, vocab_size))
    yield Part.EMBEDDING_B, Expected((dim, rank))
    if config.use_dora:
        yield Part.MAGNITUDE, Expected((dim,))


def _of_saved(base: BaseModules, module: str) -> Iterator[tuple[Part, Expected]]:
    if module in base.norms:
        for name, size in base.norms[module].items():
            yield Part(name), Expected((size,))
    elif module in base.linears:
        shape, bias = base.linears[module], base.weights[module].bias
        sizes = shape.out_features, shape.in_features
        yield Part.WEIGHT, Expected(sizes[::-1] if module in base.conv1d else sizes)
        if bias is not None:
            yield Part.BIAS, Expected(tuple(bias.shape))
    else:
        yield Part.WEIGHT, Expected(base.tables[module].shape)


def _check(name: str, info: TensorInfo, shape: tuple[int, ...]) -> None:
    if info.shape != shape:
        raise AdapterRejected(f"tensor {name} has shape {list(info.shape)}, expected {list(shape)}")
    if info.dtype not in FLOATS:
        raise AdapterRejected(f"tensor {name} has dtype {info.dtype}, expected {'/'.join(FLOATS)}")
