"""Tasks that are started again"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("task_instance") as batch_op:
        batch_op.add_column(sa.Column("reschedule_count", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("first_reschedule_start", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("task_instance") as batch_op:
        batch_op.drop_column("first_reschedule_start")
        batch_op.drop_column("reschedule_count")
