"""Model shapes that the `gpu` benchmark measures, and the amount of work for each."""

from dataclasses import dataclass

from ops.lab.bench.gpu.trials import Heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A model's shape and the batches that the benchmark computes with it."""

    name: str
    hidden: int
    intermediate: int
    num_layers: int
    heads: Heads
    vocab_size: int
    ties_embeddings: bool = False
    rank: int = 16
    """Rank of all adapters that the model serves."""
    decodes: tuple[tuple[int, int], ...] = ((1, 0), (32, 0), (32, 8), (128, 0), (128, 8), (128, 64))
    """(sequences, adapters) of each measured decode step, the largest last."""
    context: int = 512
    """Length of each sequence that decodes, in tokens."""
    prefills: tuple[int, ...] = (512, 2048, 8192)
    """Lengths of the measured prompts, in tokens."""
    head_dims: tuple[int, ...] = (128, 64, 256)
    """Head dimensions for which results are compared with the reference kernels."""
    ranks: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Adapter ranks for which results are compared with the reference kernels."""
    peft_decode: tuple[int, int] = (32, 8)
    """(sequences, adapters) of the comparison with PEFT."""
    vllm_batches: tuple[int, ...] = (32, 128)
    """Numbers of sequences of the comparison with vLLM."""
    steps: int = 16
    """Number of decode steps for each figure."""

    @property
    def max_sequences(self) -> int:
        """Largest number of sequences in a step."""
        return max(batch for batch, _ in self.decodes)

    @property
    def max_adapters(self) -> int:
        """Largest number of adapters in a step."""
        return max(adapters for _, adapters in self.decodes)

    @property
    def qkv(self) -> tuple[int, int, int]:
        """Output widths of the query, key and value projections."""
        narrow = self.heads.num_kv_heads * self.heads.head_dim
        return self.heads.num_heads * self.heads.head_dim, narrow, narrow


SIZES = {
    "tiny": Sizes(
        name="a tiny Llama",
        hidden=64,
        intermediate=96,
        num_layers=2,
        heads=Heads(4, 2, 16),
        vocab_size=320,
        rank=4,
        decodes=((1, 0), (3, 2)),
        context=20,
        prefills=(8, 24),
        head_dims=(16,),
        ranks=(8, 16),
        peft_decode=(3, 2),
        vllm_batches=(3,),
        steps=2,
    ),
    "1b": Sizes(
        name="Llama-3.2-1B's shape",
        hidden=2048,
        intermediate=8192,
        num_layers=16,
        heads=Heads(32, 8, 64),
        vocab_size=128_256,
        ties_embeddings=True,
    ),
    "8b": Sizes(
        name="Llama-3.1-8B's shape",
        hidden=4096,
        intermediate=14_336,
        num_layers=32,
        heads=Heads(32, 8, 128),
        vocab_size=128_256,
    ),
}
"""All shapes, by the value of --model-size."""
