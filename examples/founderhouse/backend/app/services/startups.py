import re
import uuid

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict
from app.models import Startup
from app.schemas import StartupIn


def slug_of(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "startup"


async def create(session: AsyncSession, owner_id: uuid.UUID, data: StartupIn) -> Startup:
    startup = Startup(owner_id=owner_id, slug=slug_of(data.name), **data.model_dump())
    session.add(startup)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("There is already a startup of this name.") from None
    await session.refresh(startup)
    return startup


async def page(session: AsyncSession, sector: str | None, limit: int, offset: int) -> tuple[list[Startup], int]:
    query = select(Startup)
    if sector:
        query = query.where(Startup.sector == sector)
    total = (await session.execute(select(func.count()).select_from(query.subquery()))).scalar_one()
    rows = await session.execute(query.order_by(Startup.name).limit(limit).offset(offset))
    return list(rows.scalars()), total


async def by_slug(session: AsyncSession, slug: str) -> Startup | None:
    return (await session.execute(select(Startup).where(Startup.slug == slug))).scalar_one_or_none()


async def sectors(session: AsyncSession) -> dict[str, int]:
    rows = await session.execute(select(Startup.sector, func.count()).group_by(Startup.sector).order_by(Startup.sector))
    return {sector: count for sector, count in rows}
