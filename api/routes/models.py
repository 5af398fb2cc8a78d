"""GET /v1/models: the base model and the adapters that a client may use."""

from pathlib import PurePath

from fastapi import APIRouter, Request

from api.access.model_rights import ModelNotFound, check_model
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import errors
from api.pools.pools import pools_of
from api.pools.requested import part
from api.schema.models import ModelCard, ModelList
from shared.adapter_sources import is_remote, without_query
from shared.protocol.access.rights import Access, Scope
from shared.protocol.adapters import Adapter, BaseModel
from shared.store.adapters.registry import Registry

router = APIRouter(tags=["models"])


@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models", summary="List models", responses=errors(503))
@guarded(Work.SUMMARY, Scope.INFERENCE, Scope.ADAPTERS)
async def list_models(request: Request, access: InAccess) -> ModelList:
    """Return the base model and all adapters. Each `id` can be the `model` of a request."""
    return ModelList(data=await model_cards(request, access))


@router.get(
    "/v1/models/{model_id:path}",
    summary="Get a model",
    responses=errors(404, 503),
)
@guarded(Work.READ, Scope.INFERENCE, Scope.ADAPTERS)
async def get_model(
    model_id: str, access: InAccess, registry: Registry = part(Registry)
) -> ModelCard:
    """Return the base model or one adapter."""
    await check_model(registry, access, model_id)
    base = await registry.base()
    if base is not None and model_id == base.name:
        return _base_card(base)
    if base is not None:
        name = model_id.removeprefix(f"{base.name}:")
        if adapter := await registry.adapter(name):
            return _adapter_card(adapter, base).model_copy(update={"id": model_id})
    raise ModelNotFound(model_id)


async def model_cards(request: Request, access: Access) -> list[ModelCard]:
    """Return a card for each model that `request` may list and that `access` allows.

    The cards of one pool follow each other. If a model of an earlier pool has the same name as an
    adapter, the adapter is listed as `base:adapter`. The name alone means the earlier model.

    Raises:
        RedisUnavailable: the registry can't be read.
    """
    cards: dict[str, ModelCard] = {}
    for pool in pools_of(request).shown_to(request):
        for card in await _cards(pool.registry):
            if not access.allows(card.id):
                continue
            is_taken = card.id in cards and card.parent is not None
            name = f"{card.parent}:{card.id}" if is_taken else card.id
            cards.setdefault(name, card.model_copy(update={"id": name}))
    return list(cards.values())


async def _cards(registry: Registry) -> list[ModelCard]:
    """Return the cards of a pool's base model and adapters; none without a base model."""
    if (base := await registry.base()) is None:
        return []
    adapters = await registry.adapters()
    return [_base_card(base), *(_adapter_card(adapter, base) for adapter in adapters)]


def _base_card(base: BaseModel) -> ModelCard:
    return ModelCard(
        id=base.name,
        created=base.created_s,
        root=base.name,
        parent=None,
        max_model_len=base.max_model_len,
    )


def _adapter_card(adapter: Adapter, base: BaseModel) -> ModelCard:
    return ModelCard(
        id=adapter.name,
        created=adapter.created_s,
        root=_source_name(adapter.source) or adapter.version,
        parent=base.name,
        max_model_len=base.max_model_len,
    )


def _source_name(source: str) -> str:
    """Return the public part of a source: a whole hub id, or the last part of a path or URL."""
    if is_remote(source):
        return PurePath(without_query(source).partition("#")[0]).name
    is_hub_id = source.count("/") == 1 and not source.startswith(("/", "."))
    return source if is_hub_id else PurePath(source).name
