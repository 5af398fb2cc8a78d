"""POST /v1/score and /v1/rerank, and the other paths that vLLM, Jina and Cohere have for them."""

from fastapi import APIRouter, Request, Response

from api.answers.submission import submit
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE
from api.openapi.entries import inference, takes
from api.requests.scores import parse_rerank, parse_score, rerank_job, score_job
from api.schema.scores import Ranking, RerankRequest, ScoreRequest, Scores
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["inference"])


@router.post("/score", include_in_schema=False)
@router.post(
    "/v1/score",
    summary="Create scores",
    responses=inference(Scores, streams=False),
    openapi_extra=takes(ScoreRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_scores(request: Request, access: InAccess) -> Response:
    """Return the score of each pair of texts: the relevance of the second text to the first.

    The model is asked whether the second text is relevant. The score is the probability of the
    answer yes, divided by the sum of the probabilities of yes and no. Other scores are the
    log-likelihood of the second text (`scoring`), and the probabilities of listed tokens
    (`label_token_ids`).
    """
    return await submit(request, access, parse_score, score_job)


@router.post("/rerank", include_in_schema=False)
@router.post("/v2/rerank", include_in_schema=False)
@router.post(
    "/v1/rerank",
    summary="Rerank documents",
    responses=inference(Ranking, streams=False),
    openapi_extra=takes(RerankRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def rerank(request: Request, access: InAccess) -> Response:
    """Sort documents by their relevance to a query, the most relevant first.

    Clients of Jina and Cohere can read the response. /v2/rerank is another path of this route.
    """
    return await submit(request, access, parse_rerank, rerank_job)
