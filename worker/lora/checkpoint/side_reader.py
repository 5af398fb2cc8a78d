"""Reads an adapter's side weights: all its changes besides the low-rank terms."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.lora.base.base_weight import BaseWeight, wide_dtype
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.low_rank import LoRAWeights
from worker.lora.checkpoint.target_modules import TokenSource, TrainedModules
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole
from worker.lora.checkpoint.tensors import AdapterTensors
from worker.lora.side.weights import (
    FullLinear,
    LowRankVectors,
    SideTerm,
    SideWeights,
    TokenLogits,
    TokenVectors,
)
from worker.lora.throttle import pause


@dataclass(frozen=True, slots=True, eq=False)
class SideReader:
    """Builds the side weights of an adapter whose tensors were checked against the base model."""

    tensors: AdapterTensors
    config: AdapterConfig
    base: BaseModules
    trained: TrainedModules
    dtype: torch.dtype
    """Dtype of the base model's outputs."""

    def read(self, low_rank: Mapping[str, LoRAWeights]) -> SideWeights:
        """Return the side weights. `low_rank` holds the matrices of the targeted linears.

        Raises:
            AdapterRejected: a value overflows, or DoRA would divide by 0, because a row of the
                changed weight has length 0.
        """
        scales: dict[str, Tensor] = {}
        shifts: dict[str, Tensor] = {}
        for module, weight in self.base.weights.items() if self._has_vectors() else ():
            pause()
            matrices = low_rank.get(module)
            if matrices is not None and self.config.use_dora:
                scales[module] = self._scale(module, weight, matrices)
            shift = self._shift(module, weight, scales.get(module), matrices)
            if shift is not None and module not in self.trained.saved:
                shifts[module] = shift
        return SideWeights(
            scales=scales,
            shifts=shifts,
            linears=self._linears(),
            embeddings=self._embeddings(),
            parameters=self._parameters(),
        )

    def _has_vectors(self) -> bool:
        """Return whether the adapter can possibly scale or shift outputs of linears."""
        biases = {TensorRole.BASE_BIAS, TensorRole.BIAS, TensorRole.LORA_B_BIAS}
        return self.config.use_dora or not biases.isdisjoint(self.tensors.roles)

    def _scale(self, module: str, base: BaseWeight, low_rank: LoRAWeights) -> Tensor:
        key = TensorKey(module, TensorRole.MAGNITUDE)
        scale = dora_scale(self.tensors[key], low_rank.a, low_rank.b, base)
        if not scale.isfinite().all():
            raise self.tensors.refusal(key, "scales a row of length 0, which DoRA can't divide by")
        return scale

    def _shift(
        self, module: str, base: BaseWeight, scale: Tensor | None, low_rank: LoRAWeights | None
    ) -> Tensor | None:
        """Return the vector to add to a linear's scaled output, `[out]`; None if there is none.

        The scaled output already includes the base's bias, multiplied by `scale`.
        """
        tensors, dtype = self.tensors, wide_dtype(self.dtype)
        base_bias = None if base.bias is None else base.bias.to("cpu", dtype)
        new_bias = tensors.find(
            TensorKey(module, TensorRole.BASE_BIAS), TensorKey(module, TensorRole.BIAS)
        )
        b_bias = tensors.find(TensorKey(module, TensorRole.LORA_B_BIAS))
        if new_bias is None and b_bias is None and (scale is None or base_bias is None):
            return None
        shift = torch.zeros(len(base.squares), dtype=dtype)
        if base_bias is not None:
            shift += base_bias if new_bias is None else tensors.cast(new_bias, dtype)
            shift -= base_bias if scale is None else base_bias * scale
        if b_bias is not None:
            assert low_rank is not None
            shift += tensors.cast(b_bias, dtype, low_rank.scaling)
        return shift

    def _linears(self) -> dict[str, SideTerm]:
        terms: dict[str, SideTerm] = {
            module: self._full_linear(module)
            for module in self.trained.saved
            if module in self.base.linears
        }
        head = self.base.head
        if head is not None and head in self.trained.tokens:
            ids, rows = self._token_rows(self.trained.tokens[head], 1.0)
            terms[head] = TokenLogits(ids, rows)
        return terms

    def _full_linear(self, module: str) -> FullLinear:
        weight = self.tensors.cast(TensorKey(module, TensorRole.WEIGHT), self.dtype)
        if module in self.base.conv1d:
            weight = weight.t().contiguous()
        bias = self.tensors.find(TensorKey(module, TensorRole.BIAS))
        return FullLinear(weight, None if bias is None else self.tensors.cast(bias, self.dtype))

    def _embeddings(self) -> dict[str, SideTerm]:
        embedding = self.base.embedding
        if embedding is None:
            return {}
        name = embedding.name
        if name in self.trained.tokens:
            rows = self._token_rows(self.trained.tokens[name], embedding.scale)
            return {name: TokenVectors(*rows)}
        if name not in self.trained.targets:
            return {}
        key_a = TensorKey(name, TensorRole.EMBEDDING_A)
        key_b = TensorKey(name, TensorRole.EMBEDDING_B)
        scaling = self.config.scaling(name)
        a = self.tensors.cast(key_a, self.dtype)
        scale = None
        if self.config.use_dora:
            b = self.tensors.cast(key_b, self.dtype, scaling)
            scale = self._scale(name, embedding.as_linear(), LoRAWeights(a, b, scaling))
        factors = scaling * embedding.scale
        b = self.tensors.cast(key_b, self.dtype, factors).t().contiguous()
        return {name: LowRankVectors(a.t().contiguous(), b, scale)}

    def _token_rows(self, source: TokenSource, factor: float) -> tuple[Tensor, Tensor]:
        """Return the sorted token ids, and their rows in the same order, multiplied by `factor`."""
        ids, order = torch.tensor(source.ids).sort()
        rows = self.tensors.cast(TensorKey(source.module, TensorRole.TOKENS), self.dtype, factor)
        return ids, rows.index_select(0, order)

    def _parameters(self) -> dict[str, dict[str, Tensor]]:
        embedding = self.base.embedding
        tables = {embedding.name} & set(self.trained.saved) if embedding else set()
        return {
            module: parameters
            for module in (*self.base.norms, *tables)
            if (parameters := self._parameters_of(module))
        }

    def _parameters_of(self, module: str) -> dict[str, Tensor]:
        roles = TensorRole.WEIGHT, TensorRole.BIAS
        keys = [self.tensors.find(TensorKey(module, role)) for role in roles]
        return {key.role.value: self.tensors.cast(key, self.dtype) for key in keys if key}


@torch.no_grad()
def dora_scale(magnitude: Tensor, a: Tensor, b: Tensor, base: BaseWeight) -> Tensor:
    """Return DoRA's factor `magnitude / ||W + B A||` for each row of the weight W.

    See Liu et al., arXiv:2402.09353. W isn't read, because it may be packed. The squared length
    of each row is computed as `||W + B A||^2 = ||W||^2 + 2 (W A^T) . B + B (A A^T) . B`, where
    `W A^T` is the base linear's product with the rows of A. `magnitude` is `[out]`, `a` is
    `[r, in]`, and `b` is `[out, r]`, with the scaling already applied. The result is `[out]`, on
    the CPU, in the dtype of `base.squares`.
    """
    device, dtype = base.squares.device, base.squares.dtype
    a = a.to(device)
    products = base.product(a).t().to(dtype)  # [out, r]
    a, b = a.to(dtype), b.to(device, dtype)
    lengths = (base.squares + ((2 * products + b @ (a @ a.t())) * b).sum(-1)).sqrt()
    return (magnitude.to(device, dtype) / lengths).cpu()
