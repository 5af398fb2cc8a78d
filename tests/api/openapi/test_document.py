"""The OpenAPI document."""

from typing import Any

import httpx


async def test_every_reference_of_the_openapi_document_resolves(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = set(document["components"]["schemas"])
    assert {ref.rpartition("/")[2] for ref in references(document)} == schemas


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()
