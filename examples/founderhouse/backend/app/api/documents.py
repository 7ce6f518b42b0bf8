import hashlib
import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import CurrentUser, DatabaseDep, MaybeUser, SettingsDep, StoreDep
from app.schemas import DocumentIn, DocumentOut, DocumentPatch, Hit, Page
from app.services import documents

router = APIRouter(prefix="/documents", tags=["documents"])

Limit = Annotated[int, Query(ge=1, le=50)]


@router.get("")
async def list_documents(
    db: DatabaseDep, user_id: MaybeUser, mine: bool = False, limit: Limit = 20, offset: Annotated[int, Query(ge=0)] = 0
) -> Page[DocumentOut]:
    async with db.session(user_id) as session:
        rows, total = await documents.page(session, user_id if mine else None, limit, offset)
    return Page(items=[DocumentOut.model_validate(r) for r in rows], total=total, limit=limit, offset=offset)


@router.get("/search")
async def search_documents(
    q: Annotated[str, Query(min_length=2, max_length=500)],
    db: DatabaseDep,
    redis: StoreDep,
    settings: SettingsDep,
    user_id: MaybeUser,
    limit: Limit = 10,
) -> list[Hit]:
    """The public documents and one's own, nearest first. Answers are cached per user."""
    key = f"search:{user_id or 'anyone'}:{limit}:{hashlib.sha256(q.encode()).hexdigest()}"
    if (known := await redis.cached(key)) is not None:
        return [Hit.model_validate(hit) for hit in known]
    async with db.session(user_id) as session:
        hits = await documents.search(session, q, limit)
    await redis.cache(key, [hit.model_dump(mode="json") for hit in hits], settings.cache_ttl_seconds)
    return hits


@router.post("", status_code=201)
async def create_document(data: DocumentIn, user_id: CurrentUser, db: DatabaseDep, redis: StoreDep) -> DocumentOut:
    async with db.session(user_id) as session:
        document = await documents.create(session, user_id, data)
    await redis.invalidate()
    return DocumentOut.model_validate(document)


@router.get("/{document_id}")
async def read_document(document_id: uuid.UUID, user_id: MaybeUser, db: DatabaseDep) -> DocumentOut:
    async with db.session(user_id) as session:
        document = await documents.get(session, document_id)
    return DocumentOut.model_validate(document)


@router.get("/{document_id}/similar")
async def similar_documents(document_id: uuid.UUID, user_id: MaybeUser, db: DatabaseDep, limit: Limit = 5) -> list[Hit]:
    async with db.session(user_id) as session:
        return await documents.similar(session, document_id, limit)


@router.patch("/{document_id}")
async def change_document(
    document_id: uuid.UUID, data: DocumentPatch, user_id: CurrentUser, db: DatabaseDep, redis: StoreDep
) -> DocumentOut:
    async with db.session(user_id) as session:
        document = await documents.change(session, await documents.owned(session, document_id, user_id), data)
    await redis.invalidate()
    return DocumentOut.model_validate(document)


@router.delete("/{document_id}", status_code=204)
async def delete_document(document_id: uuid.UUID, user_id: CurrentUser, db: DatabaseDep, redis: StoreDep) -> None:
    async with db.session(user_id) as session:
        await session.delete(await documents.owned(session, document_id, user_id))
    await redis.invalidate()
