"""/v1/files: files with the requests or the answers of batches."""

from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.files.file_store import ObjectMissing
from api.files.own_files import TenantFiles, content_name, file_body, file_not_found, remove_file
from api.files.upload import PURPOSES, FileUploads
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.lists import PAGE_PARAMETERS, page_body, read_page_query
from api.http.parameters import query
from api.openapi.entries import MEANINGS, errors
from api.pools.requested import part
from api.schema.files import DeletedFile, FileBody, FileList
from shared.errors import JobFailed, invalid_param
from shared.protocol.access.rights import Scope
from shared.store.batches.records import Purpose

router = APIRouter(tags=["batches"])
_MEANINGS = {
    **MEANINGS,
    404: "The file doesn't exist, or the server keeps no files.",
    503: "Redis or the file store is unavailable at present.",
}
_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
    },
}


@router.post(
    "/v1/files",
    summary="Upload a file",
    response_model=FileBody,
    responses=errors(400, 404, 413, 503, meanings=_MEANINGS),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    },
)
@guarded(Work.FILE_UPLOAD, Scope.INFERENCE)
async def upload_file(
    request: Request,
    access: InAccess,
    files: TenantFiles = part(TenantFiles),
    uploads: FileUploads = part(FileUploads),
) -> Response:
    """Store a file with the requests of a batch, one JSON object per line.

    The tenant's files have limits in number and in bytes. Beyond them, uploads are refused until
    files are deleted.
    """
    files.store()
    return json_response(file_body(await uploads.receive(request, access)))


@router.get(
    "/v1/files",
    summary="List files",
    response_model=FileList,
    responses=errors(400, 404, 503, meanings=_MEANINGS),
    openapi_extra={
        "parameters": [
            *PAGE_PARAMETERS,
            query(
                "purpose",
                "Purpose of the files. Defaults to all.",
                {"type": "string", "enum": [purpose.value for purpose in Purpose]},
            ),
        ]
    },
)
@guarded(Work.LIST, Scope.INFERENCE)
async def list_files(
    request: Request, access: InAccess, files: TenantFiles = part(TenantFiles)
) -> Response:
    """Return the tenant's files, newest first."""
    files.store()
    limit, after = read_page_query(request.query_params, also=["purpose"])
    purpose = _purpose(request.query_params.get("purpose"))
    page = await files.records.page(access, limit=limit, after=after, purpose=purpose)
    if page is None:
        raise file_not_found(after or "", param="after")
    return json_response(
        page_body([file_body(file) for file in page.items], has_more=page.has_more)
    )


@router.get(
    "/v1/files/{file_id}",
    summary="Get a file",
    response_model=FileBody,
    responses=errors(404, 503, meanings=_MEANINGS),
)
@guarded(Work.READ, Scope.INFERENCE)
async def get_file(
    file_id: str, access: InAccess, files: TenantFiles = part(TenantFiles)
) -> Response:
    """Return the name and size of a file."""
    return json_response(file_body(await files.own(access, file_id)))


@router.get(
    "/v1/files/{file_id}/content",
    summary="Download a file",
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": {}}},
        **errors(404, 503, meanings=_MEANINGS),
    },
)
@guarded(Work.CONTENT, Scope.INFERENCE)
async def get_file_content(
    file_id: str, access: InAccess, files: TenantFiles = part(TenantFiles)
) -> Response:
    """Return the content of a file."""
    file = await files.own(access, file_id)
    pieces = files.store().read(content_name(file.id))
    try:
        first = await anext(pieces, b"")
    except ObjectMissing:
        raise file_not_found(file_id) from None

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    # Without a length, clients wait for the end of the response before they send another request.
    return StreamingResponse(content(), media_type="application/octet-stream")


@router.delete(
    "/v1/files/{file_id}", summary="Delete a file", responses=errors(404, 503, meanings=_MEANINGS)
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def delete_file(
    file_id: str, access: InAccess, files: TenantFiles = part(TenantFiles)
) -> DeletedFile:
    """Delete a file. A batch that still reads the file fails."""
    file = await files.own(access, file_id)
    with suppress(JobFailed):  # in this case, a control process deletes the content later
        await remove_file(files.store(), files.records, file.id)
    return DeletedFile(id=file.id, deleted=True)


def _purpose(text: str | None) -> Purpose | None:
    if text is None:
        return None
    try:
        return Purpose(text)
    except ValueError:
        known = ", ".join(purpose.value for purpose in Purpose)
        raise invalid_param("purpose", f"must be one of {known}, not {text[:60]!r}") from None
