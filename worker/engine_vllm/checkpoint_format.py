"""Refuses checkpoints whose format only the native engine reads."""

from pathlib import Path

from shared.errors import ModelRejected
from worker.model.loading.folder import is_chatglm


def check_format(source: str, folder: Path) -> None:
    """Check the format of the base model in `folder`, which is `source` on the command line.

    Raises:
        ModelRejected: vLLM doesn't read the format.
    """
    if folder.is_file():
        raise ModelRejected(
            f"--model {source}: --engine vllm takes no GGUF files; leave --engine out, or serve "
            "the model that it was made from"
        )
    if is_chatglm(folder):
        raise ModelRejected(
            f"--model {source}: --engine vllm doesn't read chatglm checkpoints; leave --engine out"
        )
