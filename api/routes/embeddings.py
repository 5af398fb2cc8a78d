"""POST /v1/embeddings."""

from fastapi import APIRouter, Request, Response

from api.answers.submission import submit
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE
from api.openapi.entries import inference, takes
from api.requests.embeddings import embedding_job, parse_embedding
from api.schema.embeddings import EmbeddingRequest, Embeddings
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/embeddings",
    summary="Create embeddings",
    responses=inference(Embeddings, streams=False),
    openapi_extra=takes(EmbeddingRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_embeddings(request: Request, access: InAccess) -> Response:
    """Return the embedding of each input: its hidden states after the model's final norm, pooled.

    If `model` names an adapter, its weights are applied. An input may fill the context, and is
    tokenized with the tokenizer's special tokens.
    """
    return await submit(request, access, parse_embedding, embedding_job)
