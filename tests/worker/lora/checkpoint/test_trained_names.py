"""Adapters are read with the names that each trainer writes, on whichever class it trained."""

import json
from collections.abc import Callable, Iterable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, ModuleShape
from worker.lora.checkpoint.config import parse_config
from worker.lora.checkpoint.manifest import Manifest, manifest_of
from worker.lora.checkpoint.safetensors_header import Header, TensorInfo

RANK, WIDTH = 2, 8
SHAPES = {
    **{f"self_attn.{name}_proj": ModuleShape(WIDTH, WIDTH) for name in "qkvo"},
    **{f"mlp.{name}_proj": ModuleShape(WIDTH, 3 * WIDTH) for name in ("gate", "up")},
    "mlp.down_proj": ModuleShape(3 * WIDTH, WIDTH),
}
LAYERS = range(2)
WITH_TOWERS, OLD, IDEFICS, TEXT = DECODERS = (
    *("model.language_model", "language_model.model", "model.text_model", "model"),
)
TOWER_OF = {WITH_TOWERS: "model.vision_tower", OLD: "vision_tower", IDEFICS: "model.vision_model"}
"""Name of the tower beside each decoder. Qwen2-VL before 4.52 had `visual` beside `model`."""


def base_of(decoder: str) -> BaseModules:
    """Return a base whose decoder has this name."""
    linears = {
        f"{decoder}.layers.{layer}.{name}": shape
        for layer in LAYERS
        for name, shape in SHAPES.items()
    }
    head = "language_model.lm_head" if decoder == OLD else "lm_head"
    tower = TOWER_OF.get(decoder)
    return BaseModules(
        model_type="made",
        linears={**linears, head: ModuleShape(WIDTH, 40)},
        head=head,
        conv1d=frozenset(),
        others=dict.fromkeys(["model", decoder, f"{decoder}.layers", f"{decoder}.norm"], "X"),
        all_linear=frozenset(linears),
        decoder=decoder,
        towers=frozenset([tower] if tower else []),
    )


def tensors_of(
    modules: Iterable[str], shapes: Callable[[str], ModuleShape]
) -> list[tuple[str, TensorInfo]]:
    """Return the tensors that PEFT writes for these modules."""
    tensors = []
    for module in modules:
        shape = shapes(module)
        for part, size in (("A", (RANK, shape.in_features)), ("B", (shape.out_features, RANK))):
            name = f"base_model.model.{module}.lora_{part}.weight"
            tensors.append((name, TensorInfo("F32", size, 0, 0)))
    return tensors


def shape_of(module: str) -> ModuleShape:
    """Return the widths of a linear of the decoder, or of a tower."""
    return next((s for name, s in SHAPES.items() if module.endswith(name)), ModuleShape(5, 7))


def decoders_modules(decoder: str, names: Iterable[str] = SHAPES) -> list[str]:
    return [f"{decoder}.layers.{layer}.{name}" for layer in LAYERS for name in names]


def read(
    base: BaseModules, tensors: Iterable[tuple[str, TensorInfo]], **fields: object
) -> Manifest:
    text = json.dumps({"peft_type": "LORA", "r": RANK, **fields}).encode()
    tensors = dict(tensors)
    header = Header(json.dumps(list(tensors)).encode(), tensors, 0)
    return manifest_of(parse_config(text, True), header, base)


LINEARS = [name.rpartition(".")[2] for name in SHAPES]
_TAGS = "self_attn|attention|attn|mlp|feed_forward|ffn|dense"
_LINEARS = "|".join(LINEARS)
UNSLOTH = (
    rf"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:{_TAGS}).*?(?:{_LINEARS}).*?)"
    rf"|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:{_TAGS})\.(?:(?:{_LINEARS})))"
)
"""Unsloth's `get_peft_regex` for vision and language layers, attention and MLPs."""
AXOLOTL = r".layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj"
"""Axolotl's examples for multimodal models, after the name of the decoder."""
LLAMA_FACTORY = rf"^(?!.*(?:visual|vision_tower|vision_model)).*(?:{_LINEARS}).*"
"""LLaMA-Factory's pattern with a frozen tower. Later releases list the full names."""
TRAINERS: dict[str, Callable[[str], object]] = {
    "PEFT and TRL, a list": lambda _: LINEARS,
    "PEFT and TRL, all linears": lambda _: "all-linear",
    "Axolotl": lambda decoder: decoder.replace(".", r"\.") + AXOLOTL,
    "Axolotl, as its examples write it": lambda decoder: decoder + AXOLOTL,
    "Unsloth": lambda _: UNSLOTH,
    "LLaMA-Factory": lambda _: LLAMA_FACTORY,
    "LLaMA-Factory, full names": decoders_modules,
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("trained", DECODERS)
@pytest.mark.parametrize("served", DECODERS)
def test_a_decoder_trained_in_one_class_is_served_in_another(
    served: str, trained: str, trainer: str
) -> None:
    found = read(
        base_of(served),
        tensors_of(decoders_modules(trained), shape_of),
        target_modules=TRAINERS[trainer](trained),
    )
    assert sorted(found.trained.targets) == sorted(decoders_modules(served))
    assert [pair.module for pair in found.pairs] == found.trained.targets


@pytest.mark.parametrize("served", DECODERS)
def test_one_digest_prefix_and_scaling_whatever_class_was_trained(served: str) -> None:
    def pairs(trained: str) -> list[object]:
        key = f"{trained}.layers.1.self_attn.q_proj"
        fields = {"target_modules": LINEARS, "rank_pattern": {key: RANK}, "r": RANK}
        tensors = tensors_of(decoders_modules(trained), shape_of)
        found = read(base_of(served), tensors, alpha_pattern={f"^{key}": 32}, **fields)
        assert {pair.scaling for pair in found.pairs} == {4.0, 16.0}
        return list(found.pairs)

    assert all(pairs(trained) == pairs(served) for trained in DECODERS)


@pytest.mark.parametrize(("decoder", "head"), [(OLD, "language_model.lm_head"), (TEXT, "lm_head")])
def test_an_adapter_of_the_head_alone_is_read(decoder: str, head: str) -> None:
    tensors = tensors_of([head], lambda _: ModuleShape(WIDTH, 40))
    base = base_of(WITH_TOWERS)
    assert read(base, tensors, target_modules=["lm_head"]).trained.targets == ["lm_head"]


@pytest.mark.parametrize(
    ("served", "trained", "tower"),
    [
        (WITH_TOWERS, WITH_TOWERS, "model.vision_tower.encoder.layers.0.self_attn.q_proj"),
        (WITH_TOWERS, OLD, "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"),
        (IDEFICS, IDEFICS, "model.vision_model.encoder.layers.0.self_attn.q_proj"),
        (TEXT, TEXT, "visual.blocks.0.mlp.up_proj"),
        (TEXT, WITH_TOWERS, "model.multi_modal_projector.q_proj"),
    ],
)
def test_tensors_of_towers_are_left_out(served: str, trained: str, tower: str) -> None:
    tensors = tensors_of([*decoders_modules(trained), tower], shape_of)
    found = read(base_of(served), tensors, target_modules=LINEARS)
    assert len(found.names) == len(tensors) - 2
    assert not any(tower in name for name in found.names.values())


@pytest.mark.parametrize("module", ["model.side_tower.q_proj", "vision_towers.q_proj", "q_proj"])
def test_tensors_of_unknown_modules_are_refused_by_name(module: str) -> None:
    tensors = tensors_of([*decoders_modules(WITH_TOWERS), module], shape_of)
    with pytest.raises(AdapterRejected, match=rf"{module}\.lora_A\.weight belongs to no module"):
        read(base_of(WITH_TOWERS), tensors, target_modules=LINEARS)


classes = st.sampled_from(DECODERS)


@given(served=classes, trained=classes, other=classes, data=st.data())
def test_permuted_missing_extra_and_doubled_tensors_are_refused(
    served: str, trained: str, other: str, data: st.DataObject
) -> None:
    base = base_of(served)
    tensors = tensors_of(decoders_modules(trained), shape_of)
    check = partial(read, base, target_modules=LINEARS)
    shuffled = data.draw(st.permutations(tensors))
    assert len(check(shuffled).names) == len(tensors)
    index = data.draw(st.integers(0, len(tensors) - 1))
    (name, info), others = tensors[index], tensors[:index] + tensors[index + 1 :]
    with pytest.raises(AdapterRejected, match=f"tensor {name} is missing"):
        check(others)
    unlike = data.draw(st.sampled_from([t for t in tensors if t[1].shape != info.shape]))
    swapped = {**dict(tensors), name: unlike[1], unlike[0]: info}
    with pytest.raises(AdapterRejected, match="has shape"):
        check(swapped.items())
    with pytest.raises(AdapterRejected, match="belongs to no module"):
        check([*tensors, (name.replace("layers.", "layers.7"), info)])
    moved = name.replace(f"base_model.model.{trained}.", f"base_model.model.{other}.")
    for doubled in {moved, name.replace(".weight", ".default.weight")} - {name}:
        with pytest.raises(AdapterRejected, match=r"are for the same module|belongs to no module"):
            check([*tensors, (doubled, info)])
