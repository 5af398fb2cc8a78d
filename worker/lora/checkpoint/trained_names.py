"""Maps the names of modules in an adapter to those in the served model.

The decoder of one model has other names in other classes of transformers: in the class with towers
for images, in that class before release 4.52, and in the class for text alone. PEFT writes the
names of the class that was trained, and its patterns refer to them. Each file uses the names of one
class.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.tensor_names import parse_name

_OLD = "language_model.model"
_DECODERS = ("model.language_model", _OLD, "model.text_model", "model")
"""Names of the decoder: in classes with towers, in those before 4.52, in Idefics3, and for text."""
_HEADS = {_OLD: "language_model.lm_head"}
"""Names of the output head that aren't `lm_head`, by name of the decoder."""
_TOWERS = (
    *("audio_encoder", "audio_model", "audio_tower", "connector", "embed_audio", "embed_vision"),
    *("multi_modal_projector", "vision_encoder", "vision_model", "vision_tower", "visual"),
)
"""Names of towers in transformers, for a served model that was saved without its towers."""


@dataclass(frozen=True, slots=True)
class TrainedNames:
    """Names of the decoder, its head and the towers in one class of transformers."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Served and trained names of the decoder and of the head. Empty if they are the same."""
    towers: tuple[str, ...] = ()
    """Beginnings of the names of towers' modules, each with its dot, after an optional `model.`."""

    def trained(self, module: str) -> str:
        """Return the name under which the served `module` was trained."""
        return _moved(module, self.pairs)

    def served(self, module: str) -> str:
        """Return the name in the served model of a module that was trained."""
        return _moved(module, ((trained, served) for served, trained in self.pairs))

    def is_of_tower(self, tensor: str) -> bool:
        """Return whether a tensor belongs to a part for images, video or sound."""
        module = tensor.removeprefix("base_model.model.").removeprefix("model.")
        return module.startswith(self.towers)

    def of(self, base: BaseModules) -> BaseModules:
        """Return `base` with the names under which its modules were trained."""
        return base.renamed(self.trained) if self.pairs else base


def trained_names(tensors: Iterable[str], base: BaseModules) -> TrainedNames:
    """Return the names of the class that the file with these `tensors` was trained on.

    It is the first class, beginning with the served one, that has a module of the file. The file is
    refused later if it has others that this class doesn't have.
    """
    if base.decoder not in _DECODERS:
        return TrainedNames()
    left_out = [name.removeprefix("model.") for name in base.towers] or _TOWERS
    towers = () if base.reads_images else tuple(f"{name}." for name in left_out)
    classes = [TrainedNames((), towers)]
    for decoder in _DECODERS:
        if decoder != base.decoder:
            head = ((base.head, _HEADS.get(decoder, "lm_head")),) if base.head else ()
            classes.append(TrainedNames(((base.decoder, decoder), *head), towers))
    modules = [key.module for tensor in tensors if (key := parse_name(tensor)) is not None]
    known = {*base.names}
    found = (names for names in classes if any(names.served(each) in known for each in modules))
    return next(found, classes[0])


def _moved(module: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return the name with the first of `pairs` that it begins with replaced."""
    for old, new in pairs:
        if module == old or module.startswith(f"{old}."):
            return new + module[len(old) :]
    return module
