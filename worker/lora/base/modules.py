"""Describes a base model's modules and finds an adapter's target modules by PEFT's rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from shared.errors import AdapterRejected
from worker.lora.base.base_weight import BaseTable, BaseWeight, base_table, row_squares
from worker.lora.base.decoder import decoder_name, dropped_modules, name_of
from worker.lora.base.dialect import Dialect
from worker.lora.base.experts import MixtureWeight, mixture_weights
from worker.lora.base.linear import can_join
from worker.lora.base.targeting import Targeting
from worker.lora.patterns.name_patterns import NamePatterns
from worker.lora.patterns.pattern_form import PatternForm
from worker.upstream.adapter_targets import (
    EMBEDDING_LAYER_NAMES,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from worker.upstream.linears import Conv1D

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """Input and output width of a linear."""

    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True, eq=False)
class BaseEmbedding:
    """The input embedding of a base model."""

    name: str
    weight: Tensor
    """The embedding table, `[vocab, dim]`."""
    scale: float
    """Factor by which the module multiplies the rows of the table."""
    is_tied: bool
    """Whether the output head uses the same weight."""

    def as_linear(self) -> BaseWeight:
        """Return the properties of the transposed table `[dim, vocab]`: DoRA's weight matrix."""
        return BaseWeight(row_squares(self.weight.t()), None, lambda x: x @ self.weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BaseModules:
    """The modules of one base model. Module names are those in the model's `named_modules`."""

    model_type: str
    linears: Mapping[str, ModuleShape]
    """Linears that adapters may target: the decoder's linears in order, then the head."""
    head: str | None = None
    """Name of the output head, or None if adapters can't target it."""
    embedding: BaseEmbedding | None = None
    """Input embedding, or None if adapters can't target it."""
    conv1d: frozenset[str]
    """Names of the linears that are GPT-2 Conv1D modules. Their weights are `[in, out]`."""
    others: Mapping[str, str]
    """Descriptions, for error messages, of the modules that adapters can't target, by name."""
    all_linear: frozenset[str]
    """Names of the modules that `target_modules="all-linear"` selects in PEFT."""
    tables: Mapping[str, BaseTable] = field(default_factory=dict)
    """Shapes and digests of the embedding's and the head's weights, by module name."""
    norms: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Parameter sizes of the norms, by module name and then by parameter name."""
    experts: Mapping[str, MixtureWeight] = field(default_factory=dict)
    """Weights of experts and routers that adapters may target, by name, in the model's order."""
    weights: Mapping[str, BaseWeight] = field(default_factory=dict)
    """Weight properties of unquantised linears, by name. Empty until `serve_linears` has run."""
    dialect: Dialect | None = None
    """Names of these modules in the model's checkpoint; None if the names are the same."""
    decoder: str = ""
    """Name of the module that contains the layers and the embedding."""
    towers: frozenset[str] = frozenset()
    """Names of the modules for images, video or sound that were left out."""
    reads_images: bool = False
    """Whether the model reads images. If so, an adapter's tensors for image modules matter."""

    @property
    def names(self) -> list[str]:
        """Names of all modules: the embedding, the linears in order, then the others."""
        embedding = [self.embedding.name] if self.embedding else []
        return [*embedding, *self.linears, *self.others]

    def renamed(self, name_of: Callable[[str], str]) -> "BaseModules":
        """Return the same modules with other names. `name_of` returns the new name of a module."""

        def by_new_name(modules: Mapping[str, T]) -> dict[str, T]:
            return {name_of(name): value for name, value in modules.items()}

        embedding = self.embedding
        return replace(
            self,
            linears=by_new_name(self.linears),
            head=name_of(self.head) if self.head else None,
            embedding=embedding and replace(embedding, name=name_of(embedding.name)),
            conv1d=frozenset(map(name_of, self.conv1d)),
            others=by_new_name(self.others),
            all_linear=frozenset(map(name_of, self.all_linear)),
            tables=by_new_name(self.tables),
            norms=by_new_name(self.norms),
            experts={w.name: w for e in self.experts.values() for w in (e.renamed(name_of),)},
            weights=by_new_name(self.weights),
        )

    def targets(self, targeting: Targeting, *, may_be_empty: bool = False) -> list[str]:
        """Return the names of the modules that an adapter's configuration targets.

        The embedding comes first, then the linears in the order of `linears`. With `may_be_empty`,
        the result may be empty, and a configuration without target modules has no default ones.

        Raises:
            AdapterRejected: the configuration targets no module or an unsupported module.
        """
        has_targets = targeting.names or targeting.pattern or targeting.is_all_linear
        if may_be_empty and not has_targets:
            return []
        targeting = self._with_default_targets(targeting)
        targeted = targeting.targeted(self.names)
        for name, kind in self.others.items():
            if name in targeted:
                raise AdapterRejected(
                    f"target_modules matches {name} ({kind}); only linears inside the decoder, "
                    f"its input embedding and its output head are supported{self._advice}"
                )
        targeted |= self.tied_targets(targeting)
        targets = [name for name in self.names if name in targeted]
        if not targets and not may_be_empty:
            raise AdapterRejected(
                "target_modules matches no module of the base model; check that the adapter was "
                "trained on this model"
            )
        return targets

    def tied_targets(self, targeting: Targeting) -> set[str]:
        """Return the embedding and the head if `ensure_weight_tying` makes an adapter target both.

        Otherwise, return an empty set.
        """
        is_saved = any(is_table(name) for name in targeting.saved_names)
        if not targeting.ensure_weight_tying or is_saved or not self.is_tied:
            return set()
        assert self.embedding is not None
        assert self.head is not None
        if targeting.pattern is not None:
            is_named = bool(targeting.pattern.first_matches(EMBEDDING_LAYER_NAMES))
        else:
            is_named = any(is_table(name) for name in targeting.names or ())
        return {self.embedding.name, self.head} if is_named else set()

    @property
    def is_tied(self) -> bool:
        """Whether the head shares the embedding's weight."""
        return self.embedding is not None and self.head is not None and self.embedding.is_tied

    @property
    def _advice(self) -> str:
        """End of an error message: modules to train instead of experts.

        Empty if the model has no experts.
        """
        if not any(is_of_experts(name) for name in self.others):
            return ""
        attention = [name for name in self.linears if "attn" in name or "attention" in name]
        ends = dict.fromkeys(name.rpartition(".")[2] for name in attention)
        named = ": target_modules=[" + ", ".join(f'"{end}"' for end in ends) + "]" if ends else ""
        return f"; train the attention modules{named}"

    def _with_default_targets(self, targeting: Targeting) -> Targeting:
        if targeting.is_all_linear:
            return replace(targeting, names=self.all_linear, is_all_linear=False)
        if targeting.names is not None or targeting.pattern is not None:
            return targeting
        defaults = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(self.model_type)
        if defaults is None:
            raise AdapterRejected(
                f"target_modules isn't set, and PEFT has no default for model type "
                f"{self.model_type!r}; name the modules in adapter_config.json"
            )
        if isinstance(defaults, str):
            pattern = NamePatterns(
                "target_modules", [defaults], PatternForm.NAME, may_be_slow=False
            )
            return replace(targeting, pattern=pattern)
        return replace(targeting, names=frozenset(defaults))


def is_table(name: str) -> bool:
    """Return whether PEFT treats a module of this name as an embedding or a head."""
    return name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES


def place_in_layer(name: str) -> str:
    """Return the part of a module's name after the layer number.

    If the name has no layer number, return the whole name.
    """
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[0] + 1 :]) if numbers else name


def base_modules(model: nn.Module, dialect: Dialect | None = None) -> BaseModules:
    """Collect the modules of a transformers model, before `serve_linears` replaces its linears.

    `dialect` has their names in the model's checkpoint, if they differ.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]  # every PreTrainedModel has it
    embedding = _embedding(model, head)
    linears: dict[str, ModuleShape] = {}
    others: dict[str, str] = {}
    all_linear = set()
    for name, module in model.named_modules():
        is_linear = isinstance(module, nn.Linear | Conv1D) and module is not head
        if is_linear:
            all_linear.add(name)
        if (is_linear and not is_expert(name)) or (module is head and can_join(module)):
            linears[name] = module_shape(module)
        elif name and not (embedding and name == embedding.name):
            others[name] = type(module).__name__
    head_name = next((name for name in linears if model.get_submodule(name) is head), None)
    return BaseModules(
        model_type=str(getattr(model.config, "model_type", "")),
        linears=linears,
        head=head_name,
        embedding=embedding,
        tables=_tables(embedding, head_name, head),
        conv1d=frozenset(n for n in linears if isinstance(model.get_submodule(n), Conv1D)),
        others=others,
        all_linear=frozenset(all_linear),
        norms={name: sizes for name, module in model.named_modules() if (sizes := _sizes(module))},
        experts=mixture_weights(model),
        dialect=dialect,
        decoder=decoder_name(model),
        towers=dropped_modules(model),
    )


def _embedding(model: nn.Module, head: nn.Module | None) -> BaseEmbedding | None:
    """Return the model's input embedding if it is the plain or scaled lookup that PEFT assumes."""
    found = model.get_input_embeddings()  # type: ignore[operator]  # every PreTrainedModel has it
    scale = getattr(found, "embed_scale", None)
    if not isinstance(found, nn.Embedding) or found.max_norm is not None:
        return None
    if type(found) is not nn.Embedding and scale is None:
        return None
    return BaseEmbedding(
        name=name_of(model, found) or "",
        weight=found.weight.data,
        scale=1.0 if scale is None else float(scale),
        is_tied=getattr(head, "weight", None) is found.weight,
    )


def _tables(
    embedding: BaseEmbedding | None, head_name: str | None, head: Any
) -> dict[str, BaseTable]:
    tables = {embedding.name: base_table(embedding.weight)} if embedding else {}
    if head_name and embedding and embedding.is_tied:
        tables[head_name] = tables[embedding.name]
    elif head_name:
        tables[head_name] = base_table(head.weight.data)
    return tables


def is_expert(name: str) -> bool:
    """Return whether a module's name has a number after the layer number, as experts' names do.

    An expert gets only some of the tokens, in a different order. The expert's input rows therefore
    can't be matched to adapters.
    """
    return sum(part.isdigit() for part in name.split(".")) > 1


def is_of_experts(name: str) -> bool:
    """Return whether a module or tensor of this name belongs to the experts of a layer."""
    return "experts" in name.split(".")


def _sizes(module: nn.Module) -> dict[str, int]:
    """Return a norm's parameter sizes by name, or an empty dict for any other module."""
    parameters = dict(module.named_parameters())
    is_norm = "Norm" in type(module).__name__ and parameters.keys() <= {"weight", "bias"}
    if not is_norm or any(parameter.dim() != 1 for parameter in parameters.values()):
        return {}
    return {name: len(parameter) for name, parameter in parameters.items()}


def module_shape(linear: Any) -> ModuleShape:
    """Return the widths of a linear or of a GPT-2 Conv1D module."""
    if isinstance(linear, Conv1D):
        return ModuleShape(linear.nx, linear.nf)
    return ModuleShape(linear.in_features, linear.out_features)
