"""Maps the names of modules in an adapter to those in the served model.

Transformers can load one model with different classes: the class with towers for images, the same
class before release 4.52, and the class for text alone. The decoder has a different name in each
class. PEFT writes the names of the class that was trained into the adapter's file. Patterns in the
adapter's configuration refer to the same names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.tensor_names import parse_name

_OLD = "language_model.model"
_DECODERS = ("model.language_model", _OLD, "model.text_model", "model")
"""Names of the decoder in classes of transformers.

In order: classes with towers, such classes before release 4.52, Idefics3, and classes for text."""
_HEADS = {_OLD: "language_model.lm_head"}
"""Names of the output head in classes where it isn't `lm_head`, by the decoder's name."""
_TOWERS = (
    *("audio_encoder", "audio_model", "audio_tower", "connector", "embed_audio", "embed_vision"),
    *("multi_modal_projector", "vision_encoder", "vision_model", "vision_tower", "visual"),
)
"""Names of towers in transformers. Used if the served model was saved without its towers."""


@dataclass(frozen=True, slots=True)
class TrainedNames:
    """Names of the decoder, its head and the towers in one class of transformers."""

    pairs: tuple[tuple[str, str], ...] = ()
    """(served name, trained name) of the decoder and of the head. Empty if the names are equal."""
    towers: tuple[str, ...] = ()
    """Prefixes of the names of towers' modules, such as `visual.`.

    A name may have `model.` before the prefix."""

    def trained(self, module: str) -> str:
        """Return the name under which the served `module` was trained."""
        return _moved(module, self.pairs)

    def served(self, module: str) -> str:
        """Return the name that a trained module has in the served model."""
        return _moved(module, ((trained, served) for served, trained in self.pairs))

    def is_of_tower(self, tensor: str) -> bool:
        """Return whether a tensor belongs to a part for images, video or sound."""
        module = tensor.removeprefix("base_model.model.").removeprefix("model.")
        return module.startswith(self.towers)

    def of(self, base: BaseModules) -> BaseModules:
        """Return `base` with the names under which its modules were trained."""
        return base.renamed(self.trained) if self.pairs else base


def trained_names(tensors: Iterable[str], base: BaseModules) -> TrainedNames:
    """Return the names of the class on which the adapter with these `tensors` was trained.

    This is the first class, beginning with the served one, that has any module of the file. If the
    class lacks another module of the file, the file is refused later.
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
    """Replace the beginning of a name by the first of the (old, new) `pairs` that matches."""
    for old, new in pairs:
        if module == old or module.startswith(f"{old}."):
            return new + module[len(old) :]
    return module
