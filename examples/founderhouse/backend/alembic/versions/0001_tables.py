"""Users, startups, documents with embeddings."""

import sqlalchemy as sa
from pgvector.sqlalchemy import Vector

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _identified() -> list[sa.Column]:
    return [
        sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    ]


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "users",
        *_identified(),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "startups",
        *_identified(),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("slug", sa.String(120), nullable=False),
        sa.Column("sector", sa.String(60), nullable=False),
        sa.Column("stage", sa.String(30), nullable=False),
        sa.Column("country", sa.String(60), nullable=False),
        sa.Column("founded", sa.SmallInteger(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_startups"),
        sa.UniqueConstraint("slug", name="uq_startups_slug"),
        sa.CheckConstraint("founded BETWEEN 1900 AND 2100", name="ck_startups_founded"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_startups_owner_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_startups_owner_id", "startups", ["owner_id"])
    op.create_index("ix_startups_sector", "startups", ["sector"])
    op.create_table(
        "documents",
        *_identified(),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("startup_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("visibility", sa.String(10), server_default="private", nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("embedding", Vector(256), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.CheckConstraint("visibility IN ('private', 'public')", name="ck_documents_visibility"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_documents_owner_id_users", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["startup_id"], ["startups.id"], name="fk_documents_startup_id_startups", ondelete="SET NULL"),
    )
    op.create_index("ix_documents_owner_id", "documents", ["owner_id"])
    op.create_index("ix_documents_startup_id", "documents", ["startup_id"])


def downgrade() -> None:
    for table in ("documents", "startups", "users"):
        op.drop_table(table)
