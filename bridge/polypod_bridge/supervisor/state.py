"""The supervisor's state machine: what happens next. Events in, actions out; no clock, socket, thread or process.

The shell (`run.py`) calls one method an event, with the monotonic time in seconds, and carries out the actions it
returns, in order. `deadline()` says when `tick` is due at the latest. Every path leads to `Finish` in bounded time.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from polypod_core.reasons import Reason
from polypod_core.schema_versions import V2026_10_30

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import frames, requests, schema
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import UNREADABLE, msgpack_problem
from polypod_bridge.comm.requests import ApiCall, ApiReply
from polypod_bridge.config import Timeouts
from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor.actions import (
    Action,
    Beat,
    Call,
    CloseChannels,
    EndTree,
    Finish,
    Log,
    Mask,
    MaskConnection,
    Send,
    Signal,
    StopRetrying,
)
from polypod_bridge.supervisor.exit_log import explain
from polypod_bridge.supervisor.outcome import SILENT, EndedBy, Ending, Verdict, decide, signal_name

LONGEST_DELAY = 10 * 365 * 86400.0
"""Seconds that a task may have its next try wait."""

CHANNELS = ("comm", "logs")
SECOND_SIGNAL = 0.6
"""When the second SIGTERM is sent, as a fraction of the grace period. The rest is for the runtime's shutdown hooks."""
KILL_WAIT = 10.0
"""Seconds to wait for a process that got SIGKILL, before it counts as gone."""
DRAIN_QUIET = 5.0
"""Seconds without a byte after which the channels of a process that is gone are closed."""


CLOCK_SKEW = 30.0
"""Seconds by which the server's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs the task, as the Execution API is told."""

    hostname: str
    unixname: str


class Supervision:
    """The state of one attempt."""

    def __init__(
        self,
        ti: a.TaskInstance,
        bundle_info: a.BundleInfo,
        dag_rel_path: str,
        schema_version: str,
        identity: Identity,
        timeouts: Timeouts,
        startup: float,
        sentry_integration: str = "",
        whole_bits: int = 64,
        exits_when_told_twice: bool = False,
        token_end: float = 0.0,
    ) -> None:
        self._ti = ti
        self._bundle_info = bundle_info
        self._dag_rel_path = dag_rel_path
        self._sentry_integration = sentry_integration
        self._version = schema_version
        self._whole_bits = whole_bits
        self._exits_when_told_twice = exits_when_told_twice
        self._token_end = token_end
        self._identity = identity
        self._times = timeouts
        self._startup = startup
        self._rows = requests.rows(ti.id)

        self._pid = 0
        self._open: set[str] = {"stdout", "stderr"}
        self._awaited: set[str] = set(CHANNELS)
        self._context: a.TIRunContext | None = None
        self._started_at: datetime | None = None
        self._to_clear = 0
        self._in_flight = 0
        self._details_sent = False

        self._said: m.Terminal | None = None
        self._said_at = 0.0
        self._direct_pending = False
        self._delivered = False

        self._startup_due: float | None = None
        self._execution_due: float | None = None
        self._task_timeout: float | None = None
        self._task_timeout_due: float | None = None
        self._beat_due: float | None = None
        self._beating = False
        self._last_beat = 0.0
        self._beat_problem = ""
        self._given_up = False
        self._second_due: float | None = None
        self._kill_due: float | None = None
        self._give_up_due: float | None = None

        self._ended_by: EndedBy | None = None
        self._detail = ""
        self._known_state = "failed"
        self._exit: Exit | None = None
        self._drain_due: float | None = None
        self._last_read = 0.0
        self._mute_due: float | None = None
        self._verdict: Verdict | None = None
        self._done = False

    # Events.

    def spawned(self, now: float, pid: int, when: datetime) -> list[Action]:
        """The runtime was started; ask for leave to run while it boots."""
        self._pid = pid
        self._started_at = when
        self._startup_due = now + self._startup
        if self._times.execution is not None:
            self._execution_due = now + self._times.execution
        call = requests.run_call(self._ti.id, self._identity.hostname, self._identity.unixname, pid, when)
        return [self._call("run", call)]

    def connected(self, now: float, channel: str) -> list[Action]:
        """The runtime has connected to "comm" or "logs"."""
        self._awaited.discard(channel)
        self._open.add(channel)
        if self._awaited:
            return []
        self._startup_due = None
        return [Log("debug", "runtime connected"), *self._send_details(now)]

    def replied(self, now: float, call: Call, reply: ApiReply | None, problem: str = "") -> list[Action]:
        """A call was answered; `reply` is None if no answer was had at all, and `problem` says why."""
        self._in_flight -= 1
        if call.purpose == "run":
            actions = self._ran(now, reply, problem)
        elif call.purpose == "clear":
            actions = self._cleared(now, reply, problem)
        elif call.purpose == "final":
            return self._finished(reply, problem)
        else:
            actions = self._served(now, call, reply, problem)
        return actions + self._maybe_conclude(now)

    def frame(self, now: float, frame: frames.Frame) -> list[Action]:
        """A frame came from the runtime."""
        try:
            message = m.decode_request(frame.body)
        except m.MessageError as error:
            notice = Log("error", "a message of the runtime cannot be understood", {"error": str(error)})
            return [notice, *self._answer(frame, None, _error("GENERIC_ERROR", str(error)))]
        if isinstance(message, m.RetryTask) and not 0 <= (message.retry_delay_seconds or 0.0) <= LONGEST_DELAY:
            text = f"retry_delay_seconds is {message.retry_delay_seconds}; it must be 0 to {LONGEST_DELAY:.0f}"
            return self._answer(frame, None, _error("GENERIC_ERROR", text))
        if isinstance(message, m.TERMINAL_TYPES):
            return self._terminal(now, frame, message)
        if isinstance(message, m.MaskSecret):
            return [Mask(message.value, message.name), *self._answer(frame, None)]
        if isinstance(message, m.SetExecutionTimeout):
            return self._limit(now, frame, message.timeout_seconds)
        if isinstance(message, m.ResendLoggingFD):
            return self._answer(frame, None, _error("GENERIC_ERROR", "ResendLoggingFD is for Python runtimes only"))
        call = self._rows[type(message)].call(message)
        if call.since and not self._newest:
            # an older server would answer as if it had not been asked for, or with a bare "not found"
            text = f"{call.since} needs Airflow 3.4 (Execution API {V2026_10_30}); the server speaks an older version"
            return self._answer(frame, None, requests.api_error(400, text))
        return [self._call("serve", call, message, frame.id, frame.carrier)]

    def broken(self, now: float, problem: str) -> list[Action]:
        """The comm socket carried bytes that are no frames."""
        notice = Log("error", "the runtime broke the protocol; ending it", {"error": problem})
        return [notice, *self._end(now, EndedBy.PROTOCOL, problem, self._times.kill_grace)]

    def beaten(self, now: float, reply: ApiReply | None, problem: str = "") -> list[Action]:
        """A heartbeat was answered, or not."""
        self._beating = False
        self._beat_due = now + self._times.heartbeat_interval
        if self._exit is not None or self._said is not None:
            return []
        if reply is not None and reply.ok:
            self._last_beat = now
            return []
        if reply is not None and reply.status in (404, 409, 410):
            detail = f"the Execution API answered {reply.status} to a heartbeat: {reply.text()}"
            self._given_up = True
            notice = Log("error", "the server says that this task must not run any more; ending it", {"detail": detail})
            return [notice, *self._end(now, EndedBy.SERVER, detail, self._times.kill_grace)]
        self._beat_problem = problem or (f"HTTP {reply.status}: {reply.text()}" if reply is not None else "no answer")
        since = round(now - self._last_beat)
        fields = {"seconds_without": since, "limit": self._times.heartbeat_limit, "error": self._beat_problem}
        return [Log("warning", "heartbeat failed", fields)]

    def exited(self, now: float, ended: Exit) -> list[Action]:
        """The process has ended (or counts as gone)."""
        if self._exit is not None:
            return []
        self._exit = ended
        self._second_due = self._kill_due = self._give_up_due = self._startup_due = self._beat_due = None
        self._execution_due = self._task_timeout_due = self._mute_due = None
        self._drain_due = now + self._times.socket_cleanup
        self._last_read = now
        actions: list[Action] = [
            EndTree(),
            Log("debug", "runtime exited", {"exit_code": ended.code, "signal": ended.signal}),
        ]
        if self._ended_by is EndedBy.TOLD:
            actions.append(StopRetrying())
        if self._awaited and self._ended_by is None:
            missing = " and ".join(sorted(self._awaited))
            how = f"ended by {signal_name(ended.signal)}" if ended.signal else f"exited with code {ended.code}"
            self._ended_by = EndedBy.STARTUP_FAILED
            self._detail = f"the runtime {how} before it connected to {missing}; see its output above"
        actions += explain(ended, silent=self._said is None and "comm" not in self._open, ended_by=self._ended_by)
        return actions + self._maybe_conclude(now)

    def read(self, now: float) -> None:
        """Something was read from a channel: it is not quiet yet."""
        self._last_read = max(now, self._last_read)

    def closed(self, now: float, channel: str) -> list[Action]:
        """A channel is at its end, on both sides."""
        self._open.discard(channel)
        if channel == "comm" and self._exit is None and self._said is None and self._ended_by is None:
            # it may be about to exit; if it lives on, nobody will ever hear how the task ended
            self._mute_due = now + self._times.task_success_overtime
            return [Log("warning", "the runtime closed the comm socket without saying how the task ended")]
        return self._maybe_conclude(now)

    def told(self, now: float, number: int) -> list[Action]:
        """The bridge got a signal: forward it, wait, then force the end."""
        if self._exit is not None:
            return [StopRetrying()]
        name = signal_name(number)
        notice = Log("warning", "terminating; forwarding the signal to the runtime", {"signal": name})
        return [notice, *self._end(now, EndedBy.TOLD, f"the supervisor got {name}", self._times.stop_grace)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        if _due(self._startup_due, now):
            self._startup_due = None
            missing = " and ".join(sorted(self._awaited))
            detail = (
                f"the runtime did not connect to {missing} within {self._startup:g} s; "
                "raise task_startup_timeout if it needs longer to start"
            )
            actions.append(Log("error", "the runtime did not connect in time; ending it", {"missing": missing}))
            actions += self._end(now, EndedBy.STARTUP_TIMEOUT, detail, self._times.kill_grace)
        if _due(self._execution_due, now):
            self._execution_due = None
            detail = f"the task ran longer than its execution timeout of {self._times.execution:g} s"
            actions.append(Log("error", "execution timeout; ending the runtime"))
            actions += self._end(now, EndedBy.EXECUTION_TIMEOUT, detail, self._times.kill_grace)
        if _due(self._task_timeout_due, now):
            self._task_timeout_due = None
            if self._said is None:
                detail = f"the task ran longer than its own execution timeout of {self._task_timeout:g} s"
                actions.append(Log("error", "the task's own execution timeout; ending the runtime"))
                actions += self._end(now, EndedBy.EXECUTION_TIMEOUT, detail, self._times.kill_grace)
        if _due(self._mute_due, now):
            self._mute_due = None
            detail = "the runtime closed the comm socket, lived on, and can no longer say how the task ended"
            actions.append(Log("error", "the runtime can say no more; ending it"))
            actions += self._end(now, EndedBy.PROTOCOL, detail, self._times.kill_grace)
        if _due(self._silent_due, now):
            detail = (
                f"no heartbeat was answered for {self._times.heartbeat_limit:g} s; the last one: {self._beat_problem}"
            )
            actions.append(Log("error", "no heartbeat was answered for too long; ending the runtime"))
            actions += self._end(now, EndedBy.HEARTBEAT, detail, self._times.kill_grace)
        if _due(self._second_due, now):
            self._second_due = None
            actions.append(Log("warning", "the task ignores SIGTERM; asking its runtime to exit"))
            actions.append(Signal(signal.SIGTERM, alone=True))
        if _due(self._kill_due, now):
            self._second_due = self._kill_due = None
            self._give_up_due = now + KILL_WAIT
            actions += [
                Log("warning", "the runtime did not end in time; killing it"),
                Signal(signal.SIGKILL),
                EndTree(),
            ]
        if _due(self._give_up_due, now):
            actions.append(Log("error", "the runtime does not end even after SIGKILL; it counts as gone"))
            actions += self.exited(now, Exit(None))
        if self._exit is None and self._said is not None and now >= self._said_at + self._times.task_success_overtime:
            if self._ended_by is None:
                actions.append(Log("warning", "the task is done but its runtime stays; ending it"))
            actions += self._end(now, EndedBy.OVERTIME, "", self._times.kill_grace)
        if _due(self._beat_due, now) and not self._beating and self._said is None:
            self._beating = True
            actions.append(Beat(requests.heartbeat_call(self._ti.id, self._identity.hostname, self._pid)))
        return actions + self._maybe_conclude(now)

    def deadline(self) -> float | None:
        """Return the time at which `tick` is due, None if nothing waits for the clock."""
        times = [self._startup_due, self._execution_due, self._task_timeout_due, self._kill_due, self._give_up_due]
        times += [self._drain_due, self._mute_due, self._second_due, self._silent_due]
        if not self._beating and self._said is None:
            times.append(self._beat_due)
        if self._exit is None and self._said is not None and self._ended_by is None:
            times.append(self._said_at + self._times.task_success_overtime)
        if self._exit is not None and self._open:
            times.append(self._last_read + DRAIN_QUIET)
        return min((due for due in times if due is not None), default=None)

    @property
    def ended(self) -> bool:
        return self._done

    # What follows from them.

    @property
    def allowed(self) -> bool:
        """Whether the Execution API has allowed the task to run, so that its end is ours to tell."""
        return self._context is not None

    @property
    def _newest(self) -> bool:
        """Whether the server speaks version 2026-10-30; known once it has allowed the task to run."""
        return self._context is not None and self._context.is_of_2026_10_30

    def _limit(self, now: float, frame: frames.Frame, seconds: float) -> list[Action]:
        """Enforce the task's own timeout. The task goes first: it may end itself, and say why, within the grace."""
        if not math.isfinite(seconds):
            return self._answer(frame, None, _error("GENERIC_ERROR", f"timeout_seconds is {seconds}; set a number"))
        self._task_timeout = seconds
        self._task_timeout_due = now + seconds + self._times.stop_grace
        return self._answer(frame, None)

    def _call(
        self,
        purpose: str,
        call: ApiCall,
        message: m.Message | None = None,
        request_id: int | None = None,
        carrier: dict[str, str] | None = None,
    ) -> Call:
        self._in_flight += 1
        return Call(purpose, call, message, request_id, carrier)

    def _ran(self, now: float, reply: ApiReply | None, problem: str) -> list[Action]:
        if reply is None:
            return self._refuse(now, EndedBy.API_UNAVAILABLE, f"the Execution API could not be reached: {problem}")
        if not reply.ok:
            detail = reply.detail()
            detail = detail if isinstance(detail, dict) else {}
            previous = detail.get("previous_state")
            if reply.status == 409 and (previous == "running" or detail.get("reason") == "running_elsewhere"):
                return self._refuse(now, EndedBy.ALREADY_RUNNING, "the task instance already runs elsewhere")
            if reply.status == 409 and previous in ("success", "skipped", "removed"):
                self._known_state = previous
                detail = f"an earlier attempt had already reported {previous}; the task is not run again"
                return self._refuse(now, EndedBy.ALREADY_ENDED, detail)
            if reply.status in (401, 403) and self._token_has_ended():
                ended = datetime.fromtimestamp(self._token_end, UTC).isoformat(timespec="seconds")
                text = f"the workload's token was valid until {ended}; Airflow queues the task again"
                return self._refuse(now, EndedBy.EXPIRED, text)
            state = f" (its state is {previous})" if previous else ""
            text = f"the Execution API answered {reply.status} to the start of the task: {reply.text()}{state}"
            return self._refuse(now, EndedBy.REFUSED, text)
        try:
            self._context = msgspec.json.decode(reply.body, type=a.TIRunContext)
        except UNREADABLE as error:
            return self._refuse(now, EndedBy.API_UNAVAILABLE, f"the Execution API's run context is not valid: {error}")
        self._last_beat = now
        self._beat_due = now + self._times.heartbeat_interval
        actions: list[Action] = []
        ti = self._ti
        for key in self._context.xcom_keys_to_clear or []:
            clear = m.DeleteXCom(
                key=key, dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index
            )
            self._to_clear += 1
            actions.append(self._call("clear", self._rows[m.DeleteXCom].call(clear)))
        return actions or self._send_details(now)

    def _token_has_ended(self) -> bool:
        return 0 < self._token_end <= datetime.now(UTC).timestamp() + CLOCK_SKEW

    def _cleared(self, now: float, reply: ApiReply | None, problem: str) -> list[Action]:
        self._to_clear -= 1
        if reply is None or not (reply.ok or reply.status == 404):
            why = problem if reply is None else f"HTTP {reply.status}: {reply.text()}"
            detail = f"XComs of an earlier try could not be cleared: {why}"
            return self._refuse(now, EndedBy.API_UNAVAILABLE, detail)
        return self._send_details(now)

    def _refuse(self, now: float, ended_by: EndedBy, detail: str) -> list[Action]:
        notice = Log("error", "the task may not start; ending its runtime", {"reason": detail})
        return [notice, *self._end(now, ended_by, detail, 0.0)]

    def _send_details(self, now: float) -> list[Action]:
        """Send StartupDetails once: connected, allowed to run, and nothing left to clear."""
        if self._awaited or self._context is None or self._to_clear or self._details_sent or self._ended_by:
            return []
        self._details_sent = True
        details = a.StartupDetails(
            ti=self._ti,
            dag_rel_path=self._dag_rel_path,
            bundle_info=self._bundle_info,
            start_date=self._context.start_date or self._started_at or datetime.now(UTC),
            ti_context=self._context,
            sentry_integration=self._sentry_integration,
        )
        actions: list[Action] = []
        lost = schema.undelivered_arguments(details, self._version)
        if lost:
            fields = {"arguments": lost, "schema_version": self._version}
            actions.append(Log("warning", "the artifact's schema version has no arguments; they are not sent", fields))
        known = schema.downgrade(details, self._version)
        problem = msgpack_problem(known)
        if problem:
            return [*actions, *self._refuse(now, EndedBy.UNSENDABLE, f"the task's data cannot be sent: {problem}")]
        return [*actions, Send(frames.encode(0, known))]

    def _answer(self, frame: frames.Frame, body: a.Answer | None, error: a.ErrorResponse | None = None) -> list[Action]:
        return [Send(frames.encode(frame.id, body, error))]

    def _terminal(self, now: float, frame: frames.Frame, message: m.Message) -> list[Action]:
        assert isinstance(message, m.TERMINAL_TYPES)
        reply = [] if frame.is_answer else self._answer(frame, None)
        if self._said is not None and (self._delivered or self._direct_pending):
            return [Log("warning", "a second terminal message is ignored", {"state": message.state}), *reply]
        self._said = message
        self._said_at = now
        if isinstance(message, m.TaskState) or self._ended_by in SILENT:
            return reply
        self._direct_pending = True
        request_id = None if frame.is_answer else frame.id
        call = self._state_call(message)
        return [*self._left_out(message), self._call("terminal", call, message, request_id, frame.carrier)]

    def _state_call(self, message: m.Message) -> ApiCall:
        return requests.state_call(self._ti.id, message, newest=self._newest)

    def _left_out(self, message: m.Message) -> list[Action]:
        """Say what an older server cannot be told."""
        fields = [] if self._newest else requests.unknown_to_older(message)
        return [Log("warning", "the server is older than Airflow 3.4; not sent", {"fields": fields})] if fields else []

    def _served(self, now: float, call: Call, reply: ApiReply | None, problem: str) -> list[Action]:
        message = call.message
        assert message is not None
        actions: list[Action] = []
        body: a.Answer | None = None
        error: a.ErrorResponse | None = None
        if reply is None:
            error = requests.api_error(None, problem)
        else:
            body, error = requests.interpret(self._rows[type(message)], message, reply)
        if call.purpose == "terminal":
            self._direct_pending = False
            self._delivered = error is None
            actions += self._archived(now, reply)
        unsendable = msgpack_problem(body, self._whole_bits)
        if unsendable:
            error = _error("GENERIC_ERROR", f"the answer cannot be sent exactly: {unsendable}")
            body = None
        if error is not None:
            fields = {"request": type(message).__name__, **(error.detail or {})}
            actions.append(Log("error", "API server error", fields))
        if isinstance(body, a.ConnectionResult):
            actions.append(MaskConnection(body.password, body.extra))
        elif isinstance(body, a.VariableResult):
            actions.append(Mask(body.value, body.key))
        if call.request_id is not None and "comm" in self._open:
            try:
                data = frames.encode(call.request_id, body, error)
            except frames.FrameError as problem_found:
                data = frames.encode(call.request_id, None, _error("GENERIC_ERROR", str(problem_found)))
            actions.append(Send(data))
        return actions

    def _end(self, now: float, ended_by: EndedBy, detail: str, grace: float) -> list[Action]:
        """End the runtime: SIGTERM, `grace` seconds, SIGKILL. The first reason stands."""
        if self._exit is not None:
            return []
        if self._ended_by is None:
            self._ended_by, self._detail = ended_by, detail
        elif self._kill_due is not None or self._give_up_due is not None:
            due = self._kill_due
            # a later, more urgent reason shortens the wait
            if due is not None and now + grace < due:
                self._kill_within(now, grace)
            return []
        self._startup_due = None
        self._kill_within(now, grace)
        return [Signal(signal.SIGTERM)]

    @property
    def _silent_due(self) -> float | None:
        """When the runtime is ended, should no heartbeat be answered until then."""
        if self._beat_due is None or self._said is not None or self._ended_by is not None:
            return None
        return self._last_beat + self._times.heartbeat_limit

    def _kill_within(self, now: float, grace: float) -> None:
        self._kill_due = now + grace
        if self._exits_when_told_twice:
            self._second_due = now + grace * SECOND_SIGNAL

    def _archived(self, now: float, reply: ApiReply | None) -> list[Action]:
        """The server has put this try away, because the task was cleared: what it did counts no more."""
        if reply is None or reply.status != 410:
            return []
        detail = f"the Execution API answered 410 to the task's end: {reply.text()}"
        self._ended_by, self._detail = EndedBy.SERVER, detail
        notice = Log("warning", "the server has archived this try", {"detail": detail})
        return [notice, *self._end(now, EndedBy.SERVER, detail, self._times.kill_grace)]

    def _maybe_conclude(self, now: float) -> list[Action]:
        """When the process is gone, its channels are drained and no call is out: decide and report."""
        if self._exit is None or self._verdict is not None or self._done:
            return []
        actions: list[Action] = []
        if self._open:
            overdue = _due(self._drain_due, now)
            if not overdue and now < self._last_read + DRAIN_QUIET:
                return []
            fields = {"channels": sorted(self._open)}
            actions = [Log("warning", "the runtime is gone but its channels stay open; closing them", fields)]
            actions.append(CloseChannels())
            self._open.clear()
        if self._in_flight:
            return actions
        ending = Ending(
            exit=self._exit,
            said=self._said,
            delivered=self._delivered,
            should_retry=bool(self._context is not None and self._context.should_retry),
            ended_by=self._ended_by,
            detail=self._detail,
            known_state=self._known_state,
        )
        self._verdict = verdict = decide(ending)
        final = self._final_call(verdict)
        if final is None:
            reported = self._delivered or ending.ended_by in (
                EndedBy.SERVER,
                EndedBy.ALREADY_RUNNING,
                EndedBy.ALREADY_ENDED,
            )
            self._done = True
            return [*actions, Finish(verdict, self._exit, reported)]
        return [*actions, self._call("final", final)]

    def _final_call(self, verdict: Verdict) -> ApiCall | None:
        if self._context is None:
            return None
        if self._acknowledges(verdict):
            return requests.terminated_call(self._ti.id, self._identity.hostname, self._pid, datetime.now(UTC))
        if verdict.replay is not None:
            return self._state_call(verdict.replay)
        if not verdict.send:
            return None
        now = datetime.now(UTC)
        if verdict.state == "up_for_retry":
            retry = m.RetryTask(end_date=now, retry_reason=verdict.message[:500] or None)
            return requests.state_call(self._ti.id, retry)
        if isinstance(self._said, m.TaskState) and self._said.state == verdict.state:
            return self._state_call(msgspec.structs.replace(self._said, end_date=now))
        rendered = self._said.rendered_map_index if isinstance(self._said, m.TaskState) else None
        body = {"state": verdict.state, "end_date": now, "rendered_map_index": rendered}
        if self._newest and verdict.message:
            # the UI shows it as the reason of the state
            body["retry_reason"] = verdict.message[:500]
        return ApiCall("PATCH", f"task-instances/{self._ti.id}/state", body=body)

    def _acknowledges(self, verdict: Verdict) -> bool:
        """Whether the server waits to hear that the task it gave up has ended: Airflow 3.4 then starts its next try."""
        return self._newest and self._given_up and verdict.reason is Reason.SERVER_TERMINATED

    def _finished(self, reply: ApiReply | None, problem: str) -> list[Action]:
        assert self._verdict is not None
        assert self._exit is not None
        self._done = True
        if self._acknowledges(self._verdict):
            # refused (404, 409, 410), the server has gone on without it; if it does not answer, the executor's event
            # has the same effect
            return [Finish(self._verdict, self._exit, True)]
        reported = reply is not None and reply.ok
        actions: list[Action] = []
        if reply is not None and reply.status == 410:
            detail = f"the Execution API answered 410 to the task's end: {reply.text()}"
            self._verdict, reported = Verdict("failed", Reason.SERVER_TERMINATED, detail), True
            actions.append(Log("warning", "the server has archived this try", {"detail": detail}))
        if not reported:
            why = problem if reply is None else f"HTTP {reply.status}: {reply.text()}"
            actions.append(Log("error", "the final state could not be reported", {"error": why}))
        return [*actions, Finish(self._verdict, self._exit, reported)]


def _due(due: float | None, now: float) -> bool:
    return due is not None and now >= due


def _error(kind: str, message: str) -> a.ErrorResponse:
    return a.ErrorResponse(error=kind, detail={"message": message})
