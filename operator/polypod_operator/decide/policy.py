"""Limits and pauses of the operator's decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the operator is, and how much it keeps.

    Attributes:
        kept_attempts: attempts that a status lists; older ones are dropped.
        infrastructure_limit: infrastructure losses that are replaced: pods evicted or deleted, nodes gone, bridges
            killed.
        infrastructure_delay: the pause before the first replacement; doubled each time.
        infrastructure_delay_max: the longest pause before a replacement.
        look_after: how long a pod may be starting before that is written down and its Events are read for the cause.
        slow: how long it may be starting before what it waits for next is written down as well.
        teardown: how long a pod may take to end after its attempt: more than its grace period.
        foreign_container_grace: how long containers that are not ours may go on after the task; a mesh's would keep the
            pod for ever.
        kubelet_silence: how long a kubelet may leave a pod that should be gone, its grace period included, before the
            node counts as lost: more than a bridge lets its task run on without an answered heartbeat
            (`Timeouts.heartbeat_limit`) and takes to end it.
        position_min: the shortest time between two looks at a TaskRun that waits in line.
        position_max: the longest.
        ask_again: the pause after the Execution API did not answer.
        retry_refused: the pause after the API server refused a pod; doubled each time.
        retry_refused_max: the longest.
        longest_delay: the longest time that a task may ask to wait for its next try.
        reschedule_min: the shortest time before a task that asks to run again does.
    """

    kept_attempts: int = 20
    infrastructure_limit: int = 5
    infrastructure_delay: timedelta = timedelta(seconds=1)
    infrastructure_delay_max: timedelta = timedelta(seconds=60)
    look_after: timedelta = timedelta(seconds=3)
    slow: timedelta = timedelta(seconds=15)
    teardown: timedelta = timedelta(seconds=90)
    foreign_container_grace: timedelta = timedelta(seconds=5)
    kubelet_silence: timedelta = timedelta(seconds=180)
    position_min: timedelta = timedelta(seconds=5)
    position_max: timedelta = timedelta(seconds=900)
    ask_again: timedelta = timedelta(seconds=15)
    retry_refused: timedelta = timedelta(seconds=5)
    retry_refused_max: timedelta = timedelta(seconds=30)
    longest_delay: timedelta = timedelta(days=3650)
    reschedule_min: timedelta = timedelta(seconds=1)


POLICY = Policy()
BUSY = replace(POLICY, look_after=timedelta(seconds=10))
"""In a burst: that a pod is still starting is not worth a write."""
