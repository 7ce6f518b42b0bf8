from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import CurrentUser, DatabaseDep
from app.core.errors import NotFound
from app.schemas import Page, StartupIn, StartupOut
from app.services import startups

router = APIRouter(prefix="/startups", tags=["startups"])


@router.get("")
async def list_startups(
    db: DatabaseDep,
    sector: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Page[StartupOut]:
    async with db.session() as session:
        rows, total = await startups.page(session, sector, limit, offset)
    return Page(items=[StartupOut.model_validate(r) for r in rows], total=total, limit=limit, offset=offset)


@router.get("/sectors")
async def count_sectors(db: DatabaseDep) -> dict[str, int]:
    async with db.session() as session:
        return await startups.sectors(session)


@router.get("/{slug}")
async def read_startup(slug: str, db: DatabaseDep) -> StartupOut:
    async with db.session() as session:
        startup = await startups.by_slug(session, slug)
    if startup is None:
        raise NotFound("There is no such startup.")
    return StartupOut.model_validate(startup)


@router.post("", status_code=201)
async def create_startup(data: StartupIn, user_id: CurrentUser, db: DatabaseDep) -> StartupOut:
    async with db.session(user_id) as session:
        startup = await startups.create(session, user_id, data)
    return StartupOut.model_validate(startup)
