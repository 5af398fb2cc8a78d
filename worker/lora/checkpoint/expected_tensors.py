"""Lists the tensors that an adapter must or may have, and checks a file against them.

PEFT may store copies of the base's tables, which are the weights of the embedding and the head. If
an adapter ties the embedding and the head, PEFT stores each tied tensor twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, is_of_experts
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.safetensors_header import TensorInfo
from worker.lora.checkpoint.target_modules import TrainedModules
from worker.lora.checkpoint.tensor_file import FLOATS
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole, parse_name
from worker.lora.checkpoint.tensors import AdapterTensors
from worker.lora.checkpoint.trained_names import TrainedNames
from worker.lora.checkpoint.unsupported_config import ATTENTION_ALONE

_TIED_ROLES = (
    (TensorRole.LORA_A, TensorRole.EMBEDDING_B),
    (TensorRole.LORA_B, TensorRole.EMBEDDING_A),
    (TensorRole.WEIGHT, TensorRole.WEIGHT),
)
"""(role in the head, role in the embedding) of tied tensors.

The head's low-rank matrices are the transposed matrices of the embedding."""


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """Shape of a tensor that an adapter's file may have, and whether the file must have it."""

    shape: tuple[int, ...]
    is_required: bool = True


def expected_tensors(
    config: AdapterConfig, base: BaseModules, trained: TrainedModules
) -> dict[TensorKey, ExpectedTensor]:
    """Return the tensors that an adapter's file must or may hold, given its trained modules.

    Raises:
        AdapterRejected: the adapter combines settings that PEFT doesn't implement.
    """
    expected = _base_tensors(base, trained)
    for module in trained.targets:
        tensors_of = _linear_tensors if module in base.linears else _embedding_tensors
        expected |= {TensorKey(module, role): e for role, e in tensors_of(config, base, module)}
    for module in trained.saved:
        expected |= {TensorKey(module, role): e for role, e in _saved_tensors(base, module)}
    for source in trained.tokens.values():
        width = base.tables[source.module].shape[1]
        expected[TensorKey(source.module, TensorRole.TOKENS)] = ExpectedTensor(
            (len(source.ids), width)
        )
    return expected


def match_tensors(
    header: Mapping[str, TensorInfo],
    expected: Mapping[TensorKey, ExpectedTensor],
    trained_as: TrainedNames,
) -> dict[TensorKey, str]:
    """Check the tensors of a file against `expected` and return the tensors' names by key.

    The file uses the module names of `trained_as`, and `expected` uses those of the served model.
    Tensors of parts for images, video and sound are left out.

    Raises:
        AdapterRejected: a tensor is missing, unexpected or duplicated, or has the wrong shape or
            dtype.
    """
    names: dict[TensorKey, str] = {}
    for name, info in header.items():
        key = parse_name(name)
        key = key and TensorKey(trained_as.served(key.module), key.role)
        if key is None or key not in expected:
            if trained_as.is_of_tower(name):
                continue
            raise AdapterRejected(_why_unexpected(name))
        if key in names:
            raise AdapterRejected(
                f"tensors {names[key]} and {name} are for the same module; remove one of them"
            )
        _check_tensor(name, info, expected[key].shape)
        names[key] = name
    for key, tensor in expected.items():
        if tensor.is_required and key not in names:
            trained_key = TensorKey(trained_as.trained(key.module), key.role)
            raise AdapterRejected(
                f"tensor {trained_key} is missing, though adapter_config.json trains its module; "
                "save the adapter again"
            )
    return names


def check_duplicates(tensors: AdapterTensors, base: BaseModules, trained: TrainedModules) -> None:
    """Check that tensors that are stored twice are equal, and drop copies of the base's tables.

    Raises:
        AdapterRejected: two tensors that PEFT requires to be equal are different.
    """
    for module, table in base.tables.items():
        key = tensors.find(_table_copy_key(module, trained))
        if key is not None and module not in trained.saved:
            if not table.equals(tensors[key]):
                raise tensors.refusal(
                    key,
                    "differs from the base model's weight: the adapter was trained on another base",
                )
            tensors.drop(key)
    if trained.is_tied:
        _check_ties(tensors, base)


def _check_ties(tensors: AdapterTensors, base: BaseModules) -> None:
    assert base.embedding is not None
    assert base.head is not None
    for head_role, embedding_role in _TIED_ROLES:
        key = tensors.find(TensorKey(base.head, head_role))
        tied_key = tensors.find(TensorKey(base.embedding.name, embedding_role))
        if key is not None and tied_key is not None:
            tied = tensors[tied_key]
            if not torch.equal(tensors[key], tied if head_role is embedding_role else tied.t()):
                raise tensors.refusal(key, "differs from the embedding's, to which it is tied")


def _table_copy_key(module: str, trained: TrainedModules) -> TensorKey:
    """Return the key under which PEFT may save a copy of the embedding's or the head's weight."""
    is_target = module in trained.targets
    return TensorKey(module, TensorRole.BASE_WEIGHT if is_target else TensorRole.WEIGHT)


def _why_unexpected(name: str) -> str:
    if is_of_experts(name):
        return (
            f"tensor {name} belongs to an expert, which sees tokens in another order; "
            f"{ATTENTION_ALONE}"
        )
    return (
        f"tensor {name} belongs to no module that adapter_config.json trains; check "
        "target_modules and modules_to_save"
    )


def _base_tensors(base: BaseModules, trained: TrainedModules) -> dict[TensorKey, ExpectedTensor]:
    """Return the optional tensors: copies of the base's embedding and head, and biases."""
    expected: dict[TensorKey, ExpectedTensor] = {}
    for module, table in base.tables.items():
        expected[_table_copy_key(module, trained)] = ExpectedTensor(table.shape, False)
    for module, weight in base.weights.items():
        if weight.bias is not None:
            role = TensorRole.BASE_BIAS if module in trained.targets else TensorRole.BIAS
            expected[TensorKey(module, role)] = ExpectedTensor(tuple(weight.bias.shape), False)
    for module, sizes in base.norms.items():
        if "bias" in sizes:
            expected[TensorKey(module, TensorRole.BIAS)] = ExpectedTensor((sizes["bias"],), False)
    return expected


def _linear_tensors(
    config: AdapterConfig, base: BaseModules, module: str
) -> Iterator[tuple[TensorRole, ExpectedTensor]]:
    shape, rank = base.linears[module], config.rank(module)
    yield TensorRole.LORA_A, ExpectedTensor((rank, shape.in_features))
    yield TensorRole.LORA_B, ExpectedTensor((shape.out_features, rank))
    for field in "lora_bias", "use_dora":
        if getattr(config, field) and module not in base.weights:
            raise AdapterRejected(
                f"{field}=True isn't supported on {module}: its base weight is quantised"
            )
    if config.lora_bias:
        yield TensorRole.LORA_B_BIAS, ExpectedTensor((shape.out_features,))
    if config.use_dora:
        yield TensorRole.MAGNITUDE, ExpectedTensor((shape.out_features,))


def _embedding_tensors(
    config: AdapterConfig, base: BaseModules, module: str
) -> Iterator[tuple[TensorRole, ExpectedTensor]]:
    assert base.embedding is not None
    if config.lora_bias:
        raise AdapterRejected(
            f"lora_bias=True isn't supported on {module}: PEFT doesn't implement it for embeddings"
        )
    (vocab_size, dim), rank = base.embedding.weight.shape, config.rank(module)
    yield TensorRole.EMBEDDING_A, ExpectedTensor((rank, vocab_size))
    yield TensorRole.EMBEDDING_B, ExpectedTensor((dim, rank))
    if config.use_dora:
        yield TensorRole.MAGNITUDE, ExpectedTensor((dim,))


def _saved_tensors(base: BaseModules, module: str) -> Iterator[tuple[TensorRole, ExpectedTensor]]:
    if module in base.norms:
        for name, size in base.norms[module].items():
            yield TensorRole(name), ExpectedTensor((size,))
    elif module in base.linears:
        shape, bias = base.linears[module], base.weights[module].bias
        sizes = shape.out_features, shape.in_features
        yield TensorRole.WEIGHT, ExpectedTensor(sizes[::-1] if module in base.conv1d else sizes)
        if bias is not None:
            yield TensorRole.BIAS, ExpectedTensor(tuple(bias.shape))
    else:
        yield TensorRole.WEIGHT, ExpectedTensor(base.tables[module].shape)


def _check_tensor(name: str, info: TensorInfo, shape: tuple[int, ...]) -> None:
    if info.shape != shape:
        raise AdapterRejected(
            f"tensor {name} has shape {list(info.shape)}, expected {list(shape)}; check the base "
            "model and the rank in adapter_config.json"
        )
    if info.dtype not in FLOATS:
        raise AdapterRejected(
            f"tensor {name} has dtype {info.dtype}, expected {'/'.join(FLOATS)}; save it as one of "
            "these"
        )
