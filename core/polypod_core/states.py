"""The phases of TaskRuns and pods, and Airflow's states of task instances, in the groups that rules are about."""

from __future__ import annotations

FINISHED_PHASES = frozenset({"Succeeded", "Failed"})
"""Phases that never change again, of TaskRuns and of pods."""
ENDED_WELL = frozenset({"success", "skipped"})
"""States of task instances that have ended without failing."""
REMOVED = "removed"
"""The state of a task that its artifact does not hold: a failure, unless Airflow decides what follows."""
SETTLED = ENDED_WELL | {REMOVED}
"""States that a runtime reports as the task's last: it is not started again."""
ENDED = SETTLED | {"failed", "upstream_failed"}
"""States that task instances end in; from others, such as deferred, Airflow goes on."""
NOT_FAILED = SETTLED | {"deferred", "up_for_reschedule", "awaiting_input"}
"""States that an attempt can end in without having failed: the runtime did its part."""
