"""Translates requests for scores into jobs. Pure."""

from collections.abc import Mapping
from typing import Any

from api.http.validation import validate
from api.requests.embeddings import estimated_cost
from api.requests.score_pairs import Pairs, item_pairs, text_pairs
from api.requests.translate import CHARS_PER_TOKEN, Admission, fitting
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.schema.scores import RerankRequest, ScoreRequest, ScoringRequest
from shared.errors import invalid_param
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.scoring import ScoreKind, ScoringParams

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""Default of `instruction`, as in Qwen3-Reranker."""
UNSUPPORTED: NeutralValues = {
    # vLLM
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "max_tokens_per_query": (0,),
    "padding": ("do_not_pad",),
    "truncate_prompt_tokens": (),
    "use_activation": (True,),
    # SGLang
    "return_pooled_hidden_states": (False,),
    # Cohere
    "rank_fields": (["text"],),
}
"""Unsupported fields of /v1/score and /v1/rerank."""


def parse_score(raw: Mapping[str, Any]) -> ScoreRequest:
    """Validate the body of a request to /v1/score and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(ScoreRequest, drop_unsupported(raw, UNSUPPORTED))
    _pairs(request)
    return request


def parse_rerank(raw: Mapping[str, Any]) -> RerankRequest:
    """Validate the body of a request to /v1/rerank and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(RerankRequest, drop_unsupported(raw, UNSUPPORTED))
    if request.instruct is not None and request.instruction is not None:
        raise invalid_param("instruct", "is another name of instruction; send only one of them")
    return request


def score_job(request: ScoreRequest, admission: Admission) -> Job:
    """Return the job that computes the scores of a request.

    Raises:
        JobFailed: the texts are too long together, or one of them can't fit into the context.
    """
    kind, pairs = _kind(request), _pairs(request)
    repeated = {"softmax": bool(request.apply_softmax)} if kind is ScoreKind.LABELS else {}
    return _job(
        *(request, admission, pairs),
        repeated={"kind": kind, **repeated},
        kind=kind,
        is_reversed=bool(request.item_first),
        label_ids=tuple(request.label_token_ids or ()),
        instruction=request.instruction,
    )


def rerank_job(request: RerankRequest, admission: Admission) -> Job:
    """Return the job that sorts the documents of a request.

    Raises:
        JobFailed: the texts are too long together, or one of them can't fit into the context.
    """
    shown = None if request.return_documents is False else request.documents
    return _job(
        *(request, admission),
        Pairs(("query", "documents"), (request.query,), tuple(request.documents)),
        repeated={"top_n": request.top_n or len(request.documents), "documents": shown},
        kind=ScoreKind.RELEVANCE,
        instruction=request.instruction or request.instruct,
    )


def _kind(request: ScoreRequest) -> ScoreKind:
    if request.label_token_ids is not None:
        return ScoreKind.LABELS
    return ScoreKind(request.scoring or ScoreKind.RELEVANCE)


def _pairs(request: ScoreRequest) -> Pairs:
    kind = _kind(request)
    pairs = text_pairs(request) if kind is not ScoreKind.LABELS else item_pairs(request)
    if kind is ScoreKind.LIKELIHOOD and "" in pairs.seconds:
        raise invalid_param(pairs.fields[1], "can't have an empty text, which has no likelihood")
    return pairs


def _job(
    request: ScoringRequest,
    admission: Admission,
    pairs: Pairs,
    *,
    repeated: dict[str, Any],
    kind: ScoreKind,
    instruction: str | None,
    is_reversed: bool = False,
    label_ids: tuple[int, ...] = (),
) -> Job:
    """Build the job. `repeated` is the value of `Job.request`."""
    pairs.check_size()
    lengths = [length // (CHARS_PER_TOKEN if pairs.is_text else 1) for length in pairs.lengths()]
    job = Job(
        id=admission.id,
        endpoint=Endpoint.SCORES,
        model=request.model,
        version=admission.version,
        fingerprint=admission.fingerprint,
        sampling=SamplingParams(
            seed=0, temperature=0.0, max_tokens=0 if kind is ScoreKind.LIKELIHOOD else 1
        ),
        created_s=admission.created_s,
        deadline_ms=admission.deadline_ms,
        cost=estimated_cost(lengths, admission.max_model_len),
        reply_to=admission.reply_to,
        tenant=admission.tenant,
        prompts=pairs.seconds,
        scoring=ScoringParams(
            kind=kind,
            fields=pairs.fields,
            firsts=pairs.firsts,
            is_reversed=is_reversed,
            label_ids=label_ids,
            instruction=INSTRUCTION if instruction is None else instruction,
            max_document_tokens=request.max_tokens_per_doc or None,
        ),
        request=repeated,
    )
    return fitting(job, admission)
