"""Makes the side weights of an adapter from the tensors of its file."""

from collections.abc import Mapping

import torch
from torch import Tensor

from worker.lora.base.base_weight import BaseWeight, wide_dtype
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.dora import dora_scale
from worker.lora.checkpoint.low_rank import LoRAWeights
from worker.lora.checkpoint.target_modules import TokenSource, Trained
from worker.lora.checkpoint.tensor_names import Part, TensorKey
from worker.lora.checkpoint.tensors import AdapterTensors
from worker.lora.side.terms import (
    LowRankVectors,
    SideTerm,
    TokenLogits,
    TokenVectors,
    WholeLinear,
)
from worker.lora.side.weights import SideWeights
from worker.lora.throttle import pause


class SideReader:
    """Reads what an adapter changes besides its low-rank terms. Its tensors fit the base."""

    def __init__(
        self,
        tensors: AdapterTensors,
        config: AdapterConfig,
        base: BaseModules,
        trained: Trained,
        dtype: torch.dtype,
    ) -> None:
        """`dtype` is that of the base's outputs."""
        self._tensors = tensors
        self._config = config
        self._base = base
        self._trained = trained
        self._dtype = dtype

    def read(self, low_rank: Mapping[str, LoRAWeights]) -> SideWeights:
        """The side weights beside the low-rank terms of the targeted linears.

        Raises:
            AdapterRejected: numbers overflow.
        """
        scales: dict[str, Tensor] = {}
        shifts: dict[str, Tensor] = {}
        for module, weight in self._base.weights.items() if self._has_vectors() else ():
            pause()
            own = low_rank.get(module)
            if own is not None and self._config.use_dora:
                scales[module] = self._scale(module, weight, own)
            shift = self._shift(module, weight, scales.get(module), own)
            if shift is not None and module not in self._trained.saved:
                shifts[module] = shift
        return SideWeights(
            scales=scales,
            shifts=shifts,
            linears=self._linears(),
            embeddings=self._embeddings(),
            parameters=self._parameters(),
        )

    def _has_vectors(self) -> bool:
        """Whether it may change a linear's output by more than the low-rank term."""
        parts = {Part.BASE_BIAS, Part.BIAS, Part.LORA_B_BIAS}
        return self._config.use_dora or not parts.isdisjoint(self._tensors.parts)

    def _scale(self, module: str, base: BaseWeight, low_rank: LoRAWeights) -> Tensor:
        key = TensorKey(module, Part.MAGNITUDE)
        scale = dora_scale(self._tensors[key], low_rank.a, low_rank.b, base)
        if not scale.isfinite().all():
            raise self._tensors.refusal(key, "scales a row of length 0")
        return scale

    def _shift(
        self, module: str, base: BaseWeight, scale: Tensor | None, low_rank: LoRAWeights | None
    ) -> Tensor | None:
        """What is added to the scaled output, which has the base's bias in it; None for nothing."""
        tensors, dtype = self._tensors, wide_dtype(self._dtype)
        old = None if base.bias is None else base.bias.to("cpu", dtype)
        bias = tensors.find(TensorKey(module, Part.BASE_BIAS), TensorKey(module, Part.BIAS))
        of_b = tensors.find(TensorKey(module, Part.LORA_B_BIAS))
        if bias is None and of_b is None and (scale is None or old is None):
            return None
        shift = torch.zeros(len(base.squares), dtype=dtype)
        if old is not None:
            shift += old if bias is None else tensors.cast(bias, dtype)
            shift -= old if scale is None else old * scale
        if of_b is not None:
            assert low_rank is not None
            shift += tensors.cast(of_b, dtype, low_rank.scaling)
        return shift

    def _linears(self) -> dict[str, SideTerm]:
        found: dict[str, SideTerm] = {
            module: self._whole_linear(module)
            for module in self._trained.saved
            if module in self._base.linears
        }
        head = self._base.head
        if head is not None and head in self._trained.tokens:
            ids, rows = self._token_rows(self._trained.tokens[head], 1.0)
            found[head] = TokenLogits(ids, rows)
        return found

    def _whole_linear(self, module: str) -> WholeLinear:
        weight = self._tensors.cast(TensorKey(module, Part.WEIGHT), self._dtype)
        if module in self._base.conv1d:
            weight = weight.t().contiguous()
        bias = self._tensors.find(TensorKey(module, Part.BIAS))
        return WholeLinear(weight, None if bias is None else self._tensors.cast(bias, self._dtype))

    def _embeddings(self) -> dict[str, SideTerm]:
        embedding = self._base.embedding
        if embedding is None:
            return {}
        name = embedding.name
        if name in self._trained.tokens:
            rows = self._token_rows(self._trained.tokens[name], embedding.scale)
            return {name: TokenVectors(*rows)}
        if name not in self._trained.targets:
            return {}
        key_a, key_b = TensorKey(name, Part.EMBEDDING_A), TensorKey(name, Part.EMBEDDING_B)
        scaling = self._config.scaling(name)
        a = self._tensors.cast(key_a, self._dtype)
        scale = None
        if self._config.use_dora:
            b = self._tensors.cast(key_b, self._dtype, scaling)
            scale = self._scale(name, embedding.as_linear(), LoRAWeights(a, b, scaling))
        factors = scaling * embedding.scale
        b = self._tensors.cast(key_b, self._dtype, factors).t().contiguous()
        return {name: LowRankVectors(a.t().contiguous(), b, scale)}

    def _token_rows(self, source: TokenSource, factor: float) -> tuple[Tensor, Tensor]:
        """The tokens' ids, sorted, and their rows."""
        ids, order = torch.tensor(source.ids).sort()
        rows = self._tensors.cast(TensorKey(source.module, Part.TOKENS), self._dtype, factor)
        return ids, rows.index_select(0, order)

    def _parameters(self) -> dict[str, dict[str, Tensor]]:
        embedding = self._base.embedding
        tables = {embedding.name} & set(self._trained.saved) if embedding else set()
        return {
            module: parameters
            for module in (*self._base.norms, *tables)
            if (parameters := self._parameters_of(module))
        }

    def _parameters_of(self, module: str) -> dict[str, Tensor]:
        keys = [self._tensors.find(TensorKey(module, part)) for part in (Part.WEIGHT, Part.BIAS)]
        return {key.part.value: self._tensors.cast(key, self._dtype) for key in keys if key}
