"""Roles and policies: each tenant's rows are its own, forced (docs/decisions/0013)

Whoever runs this owns the tables and goes on seeing all of them, so the code before goes on as it did. The roles are made
where they miss (`migrations.roles`); a downgrade leaves them, as other databases of the cluster may use them.
"""

import sqlalchemy as sa
from alembic import op

from migrations import roles
from migrations.locks import lock_all

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"  # sub-selects: evaluated once a statement
KEY = "(SELECT decode(NULLIF(current_setting('onward.key', true), ''), 'hex'))"
ALL = "onward_api, onward_worker, onward_scheduler, onward_retention"

# What was accepted, which nobody rewrites, and of it what a scheduler has no business to know.
FIXED = {
    "id", "tenant_id", "model", "spec", "request", "request_hash", "idempotency_key", "training_file",
    "validation_file", "total_steps", "price_tokens", "created_at", "traceparent",
}  # fmt: skip
CONTENT = {
    "spec", "request", "request_hash", "idempotency_key", "training_file", "validation_file", "error", "best_step",
    "best_loss", "traceparent",
}  # fmt: skip
ONLY, BUT = True, False  # these columns, or all but these
USED = {"SELECT": None, "INSERT": None, "UPDATE": None}

# table -> privilege -> columns: None for the whole row, (ONLY, …) or (BUT, …); names that are not there are passed over.
GRANTS = {
    "onward_api": {
        "tenants": {"SELECT": None, "UPDATE": (ONLY, {"spent_tokens"})},
        "api_keys": {"SELECT": None, "UPDATE": (ONLY, {"last_used_at"})},
        "audit": {"SELECT": None, "INSERT": None},
        "files": {"SELECT": None, "INSERT": None, "UPDATE": (ONLY, {"deleted_at"})},
        "file_chunks": {"SELECT": None, "INSERT": None, "DELETE": None},
        "jobs": {"SELECT": None, "INSERT": None, "UPDATE": (BUT, FIXED)},
        "leases": {"SELECT": None, "DELETE": None},
        "events": {"SELECT": None, "INSERT": None},
        "evaluations": {"SELECT": None},
        "adapters": {"SELECT": None, "UPDATE": (ONLY, {"deleted_at"})},
        "workers": {"SELECT": None},
        "clocks": {"SELECT": None},
        "shares": {"SELECT": None},
        "usage": {"SELECT": None},
        "usage_days": {"SELECT": None},
    },
    "onward_worker": {
        "tenants": {"SELECT": (BUT, {"name"}), "UPDATE": (ONLY, {"spent_tokens"})},
        "audit": {"SELECT": (ONLY, {"id", "at", "tenant_id"}), "INSERT": None},
        "files": {"SELECT": None, "INSERT": None},
        "file_chunks": {"SELECT": None, "INSERT": None, "DELETE": None},
        "jobs": {"SELECT": None, "UPDATE": (BUT, FIXED)},
        "leases": {"SELECT": None, "INSERT": None, "UPDATE": None, "DELETE": None},
        "events": {"SELECT": None, "INSERT": None},
        "journal": {"SELECT": None, "INSERT": None},
        "evaluations": {"SELECT": None, "INSERT": None},
        "adapters": {"SELECT": None, "INSERT": None},
        "workers": USED,
        "clocks": {"SELECT": None},
        "shares": USED,
        "usage": USED,
        "usage_days": USED,
    },
    "onward_scheduler": {
        "tenants": {"SELECT": (BUT, {"name"})},
        "jobs": {"SELECT": (BUT, CONTENT), "UPDATE": (ONLY, {"rung_at"})},
        "leases": {"SELECT": None, "UPDATE": (ONLY, {"expires_at"})},
        "journal": {"SELECT": (ONLY, {"tenant_id", "tokens", "created_at"})},
        "evaluations": {"SELECT": (ONLY, {"tenant_id", "tokens", "created_at"})},
        "adapters": {"SELECT": (ONLY, {"job_id", "deleted_at"})},
        "workers": {"SELECT": None},
        "clocks": USED,
        "shares": {"SELECT": None, "UPDATE": (ONLY, {"finish"})},
        "usage": {"SELECT": None},
        "usage_days": {"SELECT": None},
    },
    "onward_retention": {
        "jobs": {"SELECT": (ONLY, {"id", "model", "tenant_id", "state", "finished_at"})},
        "leases": {"SELECT": (ONLY, {"job_id", "worker_id"})},
        "adapters": {"SELECT": (ONLY, {"job_id", "id"})},
        "events": {"SELECT": (ONLY, {"id", "job_id"}), "DELETE": None},
        "journal": {"SELECT": (ONLY, {"job_id", "step"}), "DELETE": None},
        "evaluations": {"SELECT": (ONLY, {"job_id", "step"}), "DELETE": None},
        "audit": {"SELECT": (ONLY, {"id", "at"}), "DELETE": None},
        "workers": {"SELECT": None, "DELETE": None},
        "clocks": {"SELECT": None},
        "pruned": USED,
        "shares": {"SELECT": None, "UPDATE": (ONLY, {"finish"}), "DELETE": None},
        "usage": {"SELECT": None, "DELETE": None},
        "usage_days": {"SELECT": None, "DELETE": None},
    },
}
# Of a job that has ended, and its journal only where it is nobody's receipt.
OVER = "EXISTS (SELECT FROM jobs WHERE jobs.id = {}.job_id AND jobs.finished_at IS NOT NULL)"
NO_RECEIPT = f"{OVER} AND NOT EXISTS (SELECT FROM adapters WHERE adapters.job_id = {{0}}.job_id)".replace("{}", "{0}")
GONE = {"events": OVER, "journal": NO_RECEIPT, "evaluations": NO_RECEIPT}


def upgrade() -> None:
    roles.create(op.get_bind())
    lock_all(op.get_bind())
    found = _tables()
    owned = [table for table, columns in found.items() if table == "tenants" or "tenant_id" in columns]
    for table in owned:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
        whose = "id" if table == "tenants" else "tenant_id"
        op.execute(f"CREATE POLICY tenant ON {table} TO onward_api, onward_worker USING ({whose} = {TENANT})")
        if table in GRANTS["onward_scheduler"]:
            op.execute(f"CREATE POLICY scheduler ON {table} TO onward_scheduler USING (true)")
        if table in GRANTS["onward_retention"]:
            which = GONE.get(table, "true").format(table)
            op.execute(f"CREATE POLICY retention ON {table} TO onward_retention USING ({which})")
    # Who has a key's hash sees that key, and through it its tenant: before that nobody knows whose request it is.
    op.execute(f"CREATE POLICY key ON api_keys TO onward_api USING (hash = {KEY})")
    mine = f"id = (SELECT tenant_id FROM api_keys WHERE hash = {KEY})"
    op.execute(f"CREATE POLICY key ON tenants FOR SELECT TO onward_api USING ({mine})")
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {ALL}")
    op.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO onward_api, onward_worker")
    op.execute(f"GRANT SELECT ON alembic_version TO {ALL}")
    for role, tables in GRANTS.items():
        for table in tables.keys() & found.keys():
            for privilege, columns in tables[table].items():
                _grant(privilege, columns, table, found[table], role)


def downgrade() -> None:
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    secured = "SELECT tablename, policyname FROM pg_policies WHERE schemaname = current_schema()"
    for table, policy in op.get_bind().execute(sa.text(secured)).all():
        op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
    for kind in ("TABLES", "SEQUENCES"):
        op.execute(f"REVOKE ALL ON ALL {kind} IN SCHEMA {schema} FROM {ALL}")
    op.execute(f"REVOKE ALL ON SCHEMA {schema} FROM {ALL}")


def _tables() -> dict[str, list[str]]:
    """The schema's tables as they are now, and their columns."""
    wanted = "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t"
    wanted += " USING (table_schema, table_name) WHERE table_schema = current_schema() AND t.table_type = 'BASE TABLE'"
    found: dict[str, list[str]] = {}
    for table, column in op.get_bind().execute(sa.text(f"{wanted} ORDER BY table_name, ordinal_position")):
        found.setdefault(table, []).append(column)
    return found


def _grant(privilege: str, columns: tuple[bool, set[str]] | None, table: str, there: list[str], role: str) -> None:
    if columns is None:
        op.execute(f"GRANT {privilege} ON {table} TO {role}")
        return
    only, named = columns
    given = [column for column in there if (column in named) == only]
    if given:
        op.execute(f"GRANT {privilege} ({', '.join(given)}) ON {table} TO {role}")
