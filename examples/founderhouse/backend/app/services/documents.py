"""Documents. No query here filters by owner: the policies in the database do."""

import uuid

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Forbidden, NotFound
from app.models import Document, Startup
from app.schemas import DocumentIn, DocumentPatch, Hit
from app.services.embeddings import embed


async def create(session: AsyncSession, owner_id: uuid.UUID, data: DocumentIn) -> Document:
    if data.startup_id and await session.get(Startup, data.startup_id) is None:
        raise NotFound("There is no such startup.")
    document = Document(owner_id=owner_id, embedding=embed(f"{data.title}\n{data.body}"), **data.model_dump())
    session.add(document)
    await session.flush()
    await session.refresh(document)
    return document


async def get(session: AsyncSession, document_id: uuid.UUID) -> Document:
    document = await session.get(Document, document_id)
    if document is None:
        raise NotFound("There is no such document.")
    return document


async def owned(session: AsyncSession, document_id: uuid.UUID, user_id: uuid.UUID) -> Document:
    document = await get(session, document_id)
    if document.owner_id != user_id:
        raise Forbidden("Only its owner may change a document.")
    return document


async def change(session: AsyncSession, document: Document, data: DocumentPatch) -> Document:
    for name, value in data.model_dump(exclude_none=True).items():
        setattr(document, name, value)
    if data.title is not None or data.body is not None:
        document.embedding = embed(f"{document.title}\n{document.body}")
    await session.flush()
    await session.refresh(document)
    return document


async def page(session: AsyncSession, owner_id: uuid.UUID | None, limit: int, offset: int) -> tuple[list[Document], int]:
    query = select(Document)
    if owner_id:
        query = query.where(Document.owner_id == owner_id)
    total = (await session.execute(select(func.count()).select_from(query.subquery()))).scalar_one()
    rows = await session.execute(query.order_by(Document.created_at.desc(), Document.id).limit(limit).offset(offset))
    return list(rows.scalars()), total


async def search(session: AsyncSession, text: str, limit: int) -> list[Hit]:
    """The documents closest to the text by cosine distance."""
    return await _nearest(session, embed(text), limit)


async def similar(session: AsyncSession, document_id: uuid.UUID, limit: int) -> list[Hit]:
    embedding = (await session.execute(select(Document.embedding).where(Document.id == document_id))).scalar_one_or_none()
    if embedding is None:
        raise NotFound("There is no such document.")
    return await _nearest(session, embedding, limit, exclude=document_id)


async def _nearest(session: AsyncSession, vector: list[float], limit: int, exclude: uuid.UUID | None = None) -> list[Hit]:
    distance = Document.embedding.cosine_distance(vector).label("distance")
    query = select(Document.id, Document.title, Document.kind, Document.body, Startup.name, distance).outerjoin(Startup)
    if exclude:
        query = query.where(Document.id != exclude)
    rows = await session.execute(query.order_by(distance).limit(limit))
    return [
        Hit(id=id_, title=title, kind=kind, startup=startup, excerpt=body[:240], similarity=round(1 - far, 4))
        for id_, title, kind, body, startup, far in rows
    ]
