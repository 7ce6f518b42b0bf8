import uuid
from datetime import datetime

from pgvector.sqlalchemy import Vector
from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, String, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified
from app.services.embeddings import DIMENSIONS


class Document(Identified, Base):
    """Something a founder wrote. Private ones are visible to their owner only (row-level security)."""

    __tablename__ = "documents"
    __table_args__ = (
        CheckConstraint("visibility IN ('private', 'public')", name="visibility"),
        Index("ix_documents_embedding", "embedding", postgresql_using="hnsw", postgresql_ops={"embedding": "vector_cosine_ops"}),
    )

    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    startup_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("startups.id", ondelete="SET NULL"), index=True)
    kind: Mapped[str] = mapped_column(String(30))
    visibility: Mapped[str] = mapped_column(String(10), server_default="private")
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    embedding: Mapped[list[float]] = mapped_column(Vector(DIMENSIONS), deferred=True)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), onupdate=func.now())
