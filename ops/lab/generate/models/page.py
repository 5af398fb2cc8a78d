"""Writes the page of model types in ops/docs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ops.lab.generate.models.outcome import VLLM_FILE, Outcome, Outcomes, Status, read_outcomes

PAGE = Path(__file__).parents[3] / "docs" / "model-types.md"
WELL_KNOWN = (
    *("llama", "llama4_text", "llama4", "mllama"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_text"),
    *("qwen3_5_moe", "qwen3_5_moe_text"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    *("mistral", "ministral", "ministral3", "mistral3", "mixtral"),
    *("gemma", "gemma2", "gemma3_text", "gemma3", "gemma3n_text", "gemma3n", "gemma4_text"),
    *("gemma4", "phi", "phi3", "phimoe", "phi4_multimodal", "smollm3"),
    *("olmo", "olmo2", "olmo3", "olmoe", "granite", "granitemoe", "granitemoehybrid"),
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "gpt_oss"),
    *("glm", "glm4", "glm4_moe", "glm_moe_dsa", "cohere", "cohere2", "falcon", "falcon_h1"),
    *("nemotron", "nemotron_h", "minimax_m2", "kimi_linear", "seed_oss", "exaone4", "ernie4_5"),
    *("ernie4_5_moe", "hunyuan_v1_dense", "stablelm", "starcoder2", "lfm2", "jamba", "mamba2"),
    *("llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "paligemma", "internvl"),
    *("gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "bloom"),
)
"""Model types of the first table, by family."""
_HEAD = """# Model types

This page lists every model of transformers {transformers} that answers text, causal or multimodal,
by the `model_type` in its `config.json`, and what each engine does with it. [Base
models](models.md) describes what the native engine serves, and quantised models.

For each type, a random model of a few layers was saved, and loaded as a worker loads `--model`. It
answered a prompt of the base model and one of an adapter in the same batch, in float32 on a CPU. It
counts as served if the log-probabilities of all tokens, in prompts and answers, equal those of
transformers and PEFT to within 0.001. This was not measured on a GPU.

Four properties decide:

* Each layer sends its attention through transformers' attention interface, and nothing besides the
  scale, a sliding window, chunks, a soft cap and attention sinks changes the result. Or it is
  recurrent, keeps its state in transformers' cache, and continues from this state exactly.
* Text needs only the decoder of a multimodal model and its head. Its towers aren't loaded.
* The model calls its linears with a row for each token, so that adapters on them are exact.
* Requests that are computed together get the same logits as each alone. `longrope` and `dynamic`
  position encodings depend on the longest request, so a model that uses one is refused.

Each worker checks its own model when it starts. The table is about transformers' default
configuration of each type, and other models of the type may have layers of other kinds.

Adapters may target the modules that are listed, and [norms and more](adapters.md). Where only
attention is listed, PEFT takes the names of the other linears for those of experts. Where experts
aren't listed, transformers computes them by code of the model's own.

The last column shows what the vLLM engine did with each type that the native engine refuses, tried
in the same way with vLLM {vllm} on CPUs: in float32, or in bfloat16 to within 0.3 where vLLM has no
other kernels. Many of vLLM's kernels exist only for GPUs, so it may serve more types there; this
was not tried. Some types need a newer transformers than vLLM's.

`python -m ops.lab.generate.models.run` and `python -m ops.lab.generate.models.vllm_trials` try all
types and generate this page.

{counts}
"""
_STATUS = {
    Status.SERVED: "served",
    Status.REFUSED: "refused",
    Status.DIFFERS: "accepted, but not exact",
    Status.FAILED: "fails with an error that no check foresees",
    Status.NOT_BUILT: "not tried, because transformers can't build the tiny model",
}


def write_page() -> None:
    """Write the page from the stored files."""
    PAGE.write_text(page(read_outcomes(), read_outcomes(VLLM_FILE)))


def page(outcomes: Outcomes, vllm: Outcomes) -> str:
    """Return the page as Markdown."""
    by_type = {outcome.model_type: outcome for outcome in outcomes.outcomes}
    known = [by_type[name] for name in WELL_KNOWN if name in by_type]
    on_vllm = {outcome.model_type: outcome for outcome in vllm.outcomes}
    others = [by_type[name] for name in sorted(by_type.keys() - set(WELL_KNOWN))]
    head = _HEAD.format(
        transformers=outcomes.version,
        vllm=vllm.version,
        counts=_counts(outcomes.outcomes, on_vllm),
    )
    return (
        f"{head}\n## Well-known families\n\n{_table(known, on_vllm)}\n"
        f"## All other types\n\n{_table(others, on_vllm)}"
    )


def _counts(outcomes: tuple[Outcome, ...], vllm: Mapping[str, Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    rows = ["| native engine | model types |", "| --- | --- |"]
    rows += [f"| {text} | {counts[status]} |" for status, text in _STATUS.items() if counts[status]]
    on_vllm = Counter(outcome.status for outcome in vllm.values())
    rows += [f"| refused, and served by the vLLM engine on CPUs | {on_vllm[Status.SERVED]} |"]
    return "\n".join([*rows, f"| all | {len(outcomes)} |"])


def _table(outcomes: Iterable[Outcome], vllm: Mapping[str, Outcome]) -> str:
    rows = ["| model type | class | native engine | adapters | vLLM engine |", "| --- " * 5 + "|"]
    return "\n".join([*rows, *(row(each, vllm.get(each.model_type)) for each in outcomes)]) + "\n"


def row(outcome: Outcome, vllm: Outcome | None) -> str:
    """Return the row of the page's table for one model type.

    If vLLM was tried, the row also shows vLLM's outcome.
    """
    on_vllm = ""
    if vllm:
        on_vllm = _shown(vllm) + (f", {_escaped(vllm.adapters)}" if vllm.adapters else "")
    names = (f"`{outcome.model_type}`", f"`{outcome.architecture}`")
    return f"| {' | '.join((*names, _shown(outcome), outcome.adapters))} | {on_vllm} |"


def _shown(outcome: Outcome) -> str:
    status = _STATUS[outcome.status]
    if outcome.reason:
        return f"{status.partition(',')[0]}: {_escaped(outcome.reason)}"
    return status


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
