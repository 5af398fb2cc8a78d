"""Bodies that describe files, in OpenAI's format."""

from typing import Any

from shared.store.batches.pages import Page
from shared.store.batches.records import StoredFile


def file_body(file: StoredFile) -> dict[str, Any]:
    """Return the body that describes a file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.name,
        "purpose": file.purpose.value,
        "status": "processed",
    }


def page_body(items: list[dict[str, Any]], page: Page[Any]) -> dict[str, Any]:
    """Return the body of a page of a list. `items` are the bodies of the page's items."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": page.has_more,
    }
