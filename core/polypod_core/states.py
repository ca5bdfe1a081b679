"""The phases of TaskRuns and pods, and Airflow's states of task instances, in the groups that rules are about."""

from __future__ import annotations

FINISHED_PHASES = frozenset({"Succeeded", "Failed"})
"""Phases that never change again, of TaskRuns and of pods."""
ENDED_WELL = frozenset({"success", "skipped", "removed"})
"""States of task instances that have ended without failing."""
ENDED = ENDED_WELL | {"failed", "upstream_failed"}
"""States that task instances end in; from others, such as deferred, Airflow goes on."""
NOT_FAILED = ENDED_WELL | {"deferred", "up_for_reschedule", "awaiting_input"}
"""States that an attempt can end in without having failed."""
