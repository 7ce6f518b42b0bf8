import uuid

from sqlalchemy import CheckConstraint, ForeignKey, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified


class Startup(Identified, Base):
    __tablename__ = "startups"
    __table_args__ = (CheckConstraint("founded BETWEEN 1900 AND 2100", name="founded"),)

    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120), unique=True)
    sector: Mapped[str] = mapped_column(String(60), index=True)
    stage: Mapped[str] = mapped_column(String(30))
    country: Mapped[str] = mapped_column(String(60))
    founded: Mapped[int] = mapped_column(SmallInteger)
    summary: Mapped[str] = mapped_column(Text)
