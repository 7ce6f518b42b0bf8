"""Row-level security: the database decides who sees and changes a row.

`app.user_id` is set for each transaction. FORCE makes the policies hold for the tables' owner too,
which is the role most platforms give an application. Where the connecting role is a superuser
(policies do not hold for those) a role without rights of its own is made, for SET LOCAL ROLE.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROLE = "founderhouse_app"
ME = "NULLIF(current_setting('app.user_id', true), '')::uuid"

POLICIES = {
    "startups": {"read": "FOR SELECT USING (true)", "write": f"FOR ALL USING (owner_id = {ME}) WITH CHECK (owner_id = {ME})"},
    "documents": {
        "read": f"FOR SELECT USING (visibility = 'public' OR owner_id = {ME})",
        "write": f"FOR ALL USING (owner_id = {ME}) WITH CHECK (owner_id = {ME})",
    },
}


def upgrade() -> None:
    for table, policies in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        for name, rule in policies.items():
            op.execute(f"CREATE POLICY {table}_{name} ON {table} {rule}")
    op.execute(f"""
        DO $$ BEGIN
            IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                    CREATE ROLE {ROLE} NOLOGIN;
                END IF;
                GRANT USAGE ON SCHEMA public TO {ROLE};
                GRANT SELECT, INSERT, UPDATE, DELETE ON users, startups, documents TO {ROLE};
            END IF;
        END $$
    """)


def downgrade() -> None:
    for table, policies in POLICIES.items():
        for name in policies:
            op.execute(f"DROP POLICY {table}_{name} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
