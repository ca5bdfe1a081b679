"""The first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
RUN = ["dag_run.namespace", "dag_run.dag_id", "dag_run.run_id"]


def upgrade() -> None:
    op.create_table(
        "connection",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("conn_id", sa.String(length=250), nullable=False),
        sa.Column("conn_type", sa.String(length=500), nullable=False),
        sa.Column("host", sa.String(length=500), nullable=True),
        sa.Column("schema", sa.String(length=500), nullable=True),
        sa.Column("login", sa.Text(), nullable=True),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("extra", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("namespace", "conn_id"),
    )
    op.create_table(
        "dag_run",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("logical_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_interval_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_interval_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_type", sa.String(length=50), nullable=False),
        sa.Column("state", sa.String(length=50), nullable=False),
        sa.Column("conf", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "dag_id", "run_id"),
    )
    with op.batch_alter_table("dag_run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dag_run_logical_date"), ["logical_date"], unique=False)

    op.create_table(
        "variable",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("namespace", "key"),
    )
    op.create_table(
        "task_instance",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=True),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("queue", sa.String(length=256), nullable=False),
        sa.Column("hostname", sa.String(length=1000), nullable=True),
        sa.Column("unixname", sa.String(length=1000), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("start_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_delay_seconds", sa.Double(), nullable=True),
        sa.Column("retry_reason", sa.String(length=500), nullable=True),
        sa.Column("rendered_map_index", sa.String(length=250), nullable=True),
        sa.Column("rendered_fields", sa.JSON(), nullable=True),
        sa.Column("arg_bindings", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["namespace", "dag_id", "run_id"], RUN, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "namespace", "dag_id", "run_id", "task_id", "map_index", "try_number", name="uq_task_instance_try"
        ),
    )
    with op.batch_alter_table("task_instance", schema=None) as batch_op:
        batch_op.create_index("ix_task_instance_state", ["namespace", "dag_id", "state"], unique=False)

    op.create_table(
        "task_state",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["namespace", "dag_id", "run_id"], RUN, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("namespace", "dag_id", "run_id", "task_id", "map_index", "key"),
    )
    op.create_table(
        "xcom",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["namespace", "dag_id", "run_id"], RUN, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("namespace", "dag_id", "run_id", "task_id", "map_index", "key"),
    )


def downgrade() -> None:
    op.drop_table("xcom")
    op.drop_table("task_state")
    with op.batch_alter_table("task_instance", schema=None) as batch_op:
        batch_op.drop_index("ix_task_instance_state")

    op.drop_table("task_instance")
    op.drop_table("variable")
    with op.batch_alter_table("dag_run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dag_run_logical_date"))

    op.drop_table("dag_run")
    op.drop_table("connection")
