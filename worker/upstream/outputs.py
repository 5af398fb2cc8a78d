"""What the modules of a model return in transformers."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.modeling_outputs import BaseModelOutputWithPast
    from transformers.utils import ModelOutput

__all__ = ["BaseModelOutputWithPast", "ModelOutput"]
