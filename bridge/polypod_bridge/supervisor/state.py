"""The supervisor's state machine: what happens next. Events in, actions out; no clock, socket, thread or process.

The shell (`run.py`) calls one method an event, with the monotonic time in seconds, and carries out the actions it
returns, in order. `deadline()` says when `tick` is due at the latest. Every path leads to `Finish` in bounded time.
The phases and their timers are in `phases.py`.
"""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from datetime import UTC, datetime

from polypod_core.errors import UserError
from polypod_core.reasons import Reason
from polypod_core.schema_versions import V2026_10_30

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import ends, frames, requests, schema
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import msgpack_problem
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
    LogRaw,
    LookUp,
    Mask,
    Send,
    Signal,
    StopRetrying,
)
from polypod_bridge.supervisor.assignment import Assignment
from polypod_bridge.supervisor.exit_log import explain
from polypod_bridge.supervisor.final import Server, acknowledges, final_call
from polypod_bridge.supervisor.outcome import SILENT, EndedBy, Ending, Verdict, decide, signal_name
from polypod_bridge.supervisor.phases import Phase, Timer, Timers
from polypod_bridge.supervisor.serving import REFUSED, answer, decoded, delivered, failure, interpreted
from polypod_bridge.supervisor.start import Cause, read_run, startup_details

CHANNELS = ("comm", "logs")
SECOND_SIGNAL = 0.6
"""When the second SIGTERM is sent, as a fraction of the grace period. The rest is for the runtime's shutdown hooks."""
KILL_WAIT = 10.0
"""Seconds to wait for a process that got SIGKILL, before it counts as gone."""
DRAIN_QUIET = 5.0
"""Seconds without a byte after which the channels of a process that is gone are closed."""


class Supervision:
    """The state of one attempt."""

    def __init__(self, task: Assignment, timeouts: Timeouts, startup: float) -> None:
        """Begin.

        Args:
            startup: seconds that the runtime has to connect.
        """
        self._task, self._times, self._startup = task, timeouts, startup
        self._rows = requests.rows(task.ti.id)
        self._phase, self._timers = Phase.BOOTING, Timers()
        self._pid = 0
        self._started_at: datetime | None = None
        self._awaited: set[str] = set(CHANNELS)
        self._open: set[str] = {"stdout", "stderr"}
        self._context: a.TIRunContext | None = None
        self._to_clear = self._in_flight = 0
        self._said: m.Terminal | None = None
        self._garbled = self._why = ""
        self.refused = ""
        """What was wrong with the last request that could not be read; some SDKs hide it from the task."""
        self._delivering = self._delivered = False
        self._task_timeout = 0.0
        self._last_beat, self._beat_problem = 0.0, ""
        self._gave_up = False
        self._cause: Cause | None = None
        self._exit = Exit(None)
        self._verdict: Verdict | None = None

    # Events.

    def spawned(self, now: float, pid: int, when: datetime) -> list[Action]:
        """The runtime was started; ask for leave to run while it boots."""
        self._timers.start(Timer.STARTUP, now + self._startup)
        if self._times.execution is not None:
            self._timers.start(Timer.EXECUTION, now + self._times.execution)
        return self._ask_to_run(pid, when)

    def not_started(self, pid: int, when: datetime, error: UserError) -> list[Action]:
        """There is no runtime, and never will be: report the task as failed, so that it is not left queued."""
        self._phase = Phase.DRAINING
        self._awaited.clear()
        self._open.clear()
        self._verdict = Verdict("failed", error.reason, error.message, send=True)
        return self._ask_to_run(pid, when)

    def _ask_to_run(self, pid: int, when: datetime) -> list[Action]:
        self._pid, self._started_at = pid, when
        who = self._task.identity
        return [self._call("run", requests.run_call(self._task.ti.id, who.hostname, who.unixname, pid, when))]

    def connected(self, now: float, channel: str) -> list[Action]:
        """The runtime has connected to "comm" or "logs"."""
        self._awaited.discard(channel)
        self._open.add(channel)
        if not self._phase.alive:
            # the process was given up: read what it still sends, but only until the channel is quiet
            self._timers.start(Timer.QUIET, now + DRAIN_QUIET)
        if self._awaited:
            return []
        self._timers.stop(Timer.STARTUP)
        return [Log("debug", "runtime connected"), *self._send_details(now)]

    def replied(self, now: float, call: Call, reply: ApiReply | None, problem: str = "") -> list[Action]:
        """A call was answered; `reply` is None if no answer was had at all, and `problem` says why."""
        self._in_flight -= 1
        if call.purpose == "final":
            return self._finished(reply, problem)
        if call.purpose == "run":
            actions = self._ran(now, read_run(reply, problem, self._task.token_end))
        elif call.purpose == "clear":
            actions = self._cleared(now, reply, problem)
        else:
            actions = self._served(now, call, reply, problem)
        return actions + self._maybe_conclude(now)

    def looked_up(self, ask: LookUp, found: a.Answer | None, problem: str = "") -> list[Action]:
        """A mounted Secret was asked for a connection or variable; None, if it has none: the Execution API is next."""
        if found is None and not problem:
            return self._ask_api(ask.message, ask.request_id, ask.carrier)
        error = requests.api_error(None, problem) if problem else None
        frame_id = ask.request_id if "comm" in self._open else None
        return delivered(ask.message, found, error, frame_id, self._task.whole_bits)

    def frame(self, now: float, frame: frames.Frame) -> list[Action]:
        """A frame came from the runtime."""
        message = decoded(frame)
        if isinstance(message, str):
            return self._invalid(now, frame, message)
        if isinstance(message, m.TERMINAL_TYPES):
            return self._terminal(now, frame, message)
        if isinstance(message, m.MaskSecret):
            return [Mask(message.value, message.name), answer(frame.id, None)]
        if isinstance(message, m.SetExecutionTimeout):
            return self._limit(now, frame, message.timeout_seconds)
        if isinstance(message, m.ResendLoggingFD):
            text = "ResendLoggingFD is for Python runtimes only"
            return [answer(frame.id, None, failure(REFUSED, text))]
        if isinstance(message, m.GetConnection | m.GetVariable):
            return [LookUp(message, frame.id, frame.carrier)]
        return self._ask_api(message, frame.id, frame.carrier)

    def came(self, channel: str) -> None:
        """The runtime connected to a channel, and ended before anything was read from it."""
        self._awaited.discard(channel)

    def broken(self, now: float, problem: str, raw: bytes = b"") -> list[Action]:
        """The comm socket carried bytes that are no frames."""
        notice = LogRaw("the runtime broke the protocol; ending it", problem, raw)
        return [notice, *self._end(now, EndedBy.PROTOCOL, problem, self._times.kill_grace)]

    def beaten(self, now: float, reply: ApiReply | None, problem: str = "") -> list[Action]:
        """A heartbeat was answered, or not."""
        if not self._phase.alive or self._said is not None:
            return []
        if reply is not None and reply.status in (404, 409, 410):
            detail = f"the Execution API answered {reply.status} to a heartbeat: {reply.text()}"
            self._gave_up = True
            notice = Log("error", "the server says that this task must not run; ending it", {"detail": detail})
            return self._end(now, EndedBy.SERVER, detail, self._times.kill_grace, notice)
        self._timers.start(Timer.HEARTBEAT, now + self._times.heartbeat_interval)
        if reply is not None and reply.ok:
            self._heard(now)
            return []
        self._beat_problem = problem or (f"HTTP {reply.status}: {reply.text()}" if reply is not None else "no answer")
        since = round(now - self._last_beat)
        fields = {"seconds_without": since, "limit": self._times.heartbeat_limit, "error": self._beat_problem}
        return [Log("warning", "heartbeat failed", fields)]

    def exited(self, now: float, ended: Exit) -> list[Action]:
        """The process has ended (or counts as gone)."""
        if not self._phase.alive:
            return []
        self._phase, self._exit = Phase.DRAINING, ended
        self._timers.clear()
        self._timers.start(Timer.DRAIN, now + self._times.socket_cleanup)
        self._timers.start(Timer.QUIET, now + DRAIN_QUIET)
        actions: list[Action] = [
            EndTree(),
            Log("debug", "runtime exited", {"exit_code": ended.code, "signal": ended.signal}),
        ]
        if self._ended_by is EndedBy.SIGNAL:
            actions.append(StopRetrying())
        if self._awaited and self._cause is None:
            missing = " and ".join(sorted(self._awaited))
            how = f"ended by {signal_name(ended.signal)}" if ended.signal else f"exited with code {ended.code}"
            detail = f"the runtime {how} before it connected to {missing}"
            self._cause = Cause(EndedBy.STARTUP_FAILED, detail)
        actions += explain(
            ended, silent=self._said is None and not self._garbled and "comm" not in self._open, ended_by=self._ended_by
        )
        return actions + self._maybe_conclude(now)

    def read(self, now: float) -> None:
        """Something was read from a channel: it is not quiet yet."""
        quiet = self._timers.at(Timer.QUIET)
        if quiet is not None:
            self._timers.start(Timer.QUIET, max(quiet, now + DRAIN_QUIET))

    def closed(self, now: float, channel: str) -> list[Action]:
        """A channel is at its end, on both sides."""
        self._open.discard(channel)
        if channel == "comm" and self._phase in (Phase.BOOTING, Phase.RUNNING):
            # it may be about to exit; if it lives on, nobody will ever hear how the task ended
            self._timers.start(Timer.MUTE, now + self._times.task_success_overtime)
            return [Log("warning", "the runtime closed the comm socket without reporting how the task ended")]
        return self._maybe_conclude(now)

    def signalled(self, now: float, number: int) -> list[Action]:
        """The bridge got a signal: forward it, wait, then force the end."""
        if not self._phase.alive:
            return [StopRetrying()]
        name = signal_name(number)
        notice = Log("warning", "terminating; forwarding the signal to the runtime", {"signal": name})
        return self._end(now, EndedBy.SIGNAL, f"the bridge got {name}", self._times.stop_grace, notice)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for timer, ring in _RINGS.items():
            if self._timers.take(timer, now, self._phase):
                actions += ring(self, now)
        return actions + self._maybe_conclude(now)

    def deadline(self) -> float | None:
        """Return the time at which `tick` is due, None if nothing waits for the clock."""
        return self._timers.next(self._phase)

    @property
    def ended(self) -> bool:
        return self._phase is Phase.DONE

    @property
    def allowed(self) -> bool:
        """Whether the Execution API has allowed the task to run, so that its end is ours to tell."""
        return self._context is not None

    # Timers, by `_RINGS`.

    def _startup_is_over(self, now: float) -> list[Action]:
        missing = " and ".join(sorted(self._awaited))
        detail = (
            f"the runtime did not connect to {missing} within {self._startup:g} s; "
            "raise task_startup_timeout if it needs longer to start"
        )
        notice = Log("error", "the runtime did not connect in time; ending it", {"missing": missing})
        return self._end(now, EndedBy.STARTUP_TIMEOUT, detail, self._times.kill_grace, notice)

    def _execution_is_over(self, now: float) -> list[Action]:
        detail = f"the task ran longer than its execution timeout of {self._times.execution:g} s"
        notice = Log("error", "execution timeout; ending the runtime")
        return self._end(now, EndedBy.EXECUTION_TIMEOUT, detail, self._times.kill_grace, notice)

    def _task_timeout_is_over(self, now: float) -> list[Action]:
        detail = f"the task ran longer than its own execution timeout of {self._task_timeout:g} s"
        notice = Log("error", "the task's own execution timeout; ending the runtime")
        return self._end(now, EndedBy.EXECUTION_TIMEOUT, detail, self._times.kill_grace, notice)

    def _stayed_mute(self, now: float) -> list[Action]:
        detail = "the runtime closed the comm socket but kept running; it cannot report how the task ended"
        notice = Log("error", "the runtime cannot report any more; ending it")
        return self._end(now, EndedBy.PROTOCOL, detail, self._times.kill_grace, notice)

    def _no_heartbeat_was_answered(self, now: float) -> list[Action]:
        detail = f"no heartbeat was answered for {self._times.heartbeat_limit:g} s; the last one: {self._beat_problem}"
        notice = Log("error", "no heartbeat was answered for too long; ending the runtime")
        if self._phase is Phase.BOOTING:
            # nothing of the task has run, so that it may be started again elsewhere
            detail = f"{detail}; the task had not started"
            return self._end(now, EndedBy.API_UNAVAILABLE, detail, self._times.kill_grace, notice)
        return self._end(now, EndedBy.HEARTBEAT, detail, self._times.kill_grace, notice)

    def _signal_again(self, now: float) -> list[Action]:
        notice = Log("warning", "the task ignores SIGTERM; asking its runtime to exit")
        return [notice, Signal(signal.SIGTERM, alone=True)]

    def _kill(self, now: float) -> list[Action]:
        self._timers.stop(Timer.SECOND_SIGNAL)
        self._timers.start(Timer.GIVE_UP, now + KILL_WAIT)
        notice = Log("warning", "the runtime did not end in time; killing it")
        return [notice, Signal(signal.SIGKILL), EndTree()]

    def _give_up(self, now: float) -> list[Action]:
        notice = Log("error", "the runtime does not end even after SIGKILL; it counts as gone")
        return [notice, *self.exited(now, Exit(None))]

    def _overtime_is_over(self, now: float) -> list[Action]:
        notice = Log("warning", "the task is done but its runtime did not exit; ending it")
        return self._end(now, EndedBy.OVERTIME, "", self._times.kill_grace, notice if self._cause is None else None)

    def _beat(self, now: float) -> list[Action]:
        return [Beat(requests.heartbeat_call(self._task.ti.id, self._task.identity.hostname, self._pid))]

    # What follows from events.

    @property
    def _ended_by(self) -> EndedBy | None:
        return self._cause.ended_by if self._cause is not None else None

    @property
    def _server(self) -> Server:
        return Server(self._context is not None and self._context.is_of_2026_10_30, self._gave_up)

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

    def _ask_api(self, message: m.Message, request_id: int, carrier: dict[str, str] | None) -> list[Action]:
        call = self._rows[type(message)].call(message)
        if call.since and not self._server.newest:
            # an older server would answer as if it had not been asked for, or with a bare "not found"
            text = f"{call.since} needs Airflow 3.4 (Execution API {V2026_10_30}); the server speaks an older version"
            return [answer(request_id, None, requests.api_error(400, text))]
        return [self._call("serve", call, message, request_id, carrier)]

    def _limit(self, now: float, frame: frames.Frame, seconds: float) -> list[Action]:
        """Enforce the task's own timeout. The task goes first: it may end itself, and say why, within the grace."""
        if not math.isfinite(seconds):
            return [answer(frame.id, None, failure(REFUSED, f"timeout_seconds is {seconds}; set a number"))]
        self._task_timeout = seconds
        if self._said is None:
            self._timers.start(Timer.TASK_TIMEOUT, now + seconds + self._times.stop_grace)
        return [answer(frame.id, None)]

    def _ran(self, now: float, found: a.TIRunContext | Cause) -> list[Action]:
        if isinstance(found, Cause):
            if self._verdict is None:
                return self._refuse(now, found)
            self._verdict = replace(self._verdict, message=f"{self._verdict.message}; {found.detail}", send=False)
            return [Log("error", "the failure could not be reported", {"error": found.detail})]
        self._context = found
        if not self._phase.alive:
            return []
        if self._said is None:
            self._heard(now)
            self._timers.start(Timer.HEARTBEAT, now + self._times.heartbeat_interval)
        ti = self._task.ti
        clears = [
            m.DeleteXCom(key=key, dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
            for key in found.xcom_keys_to_clear or []
        ]
        self._to_clear = len(clears)
        calls = [self._call("clear", self._rows[m.DeleteXCom].call(clear)) for clear in clears]
        return [*calls] or self._send_details(now)

    def _heard(self, now: float) -> None:
        self._last_beat = now
        self._timers.start(Timer.SILENCE, now + self._times.heartbeat_limit)

    def _cleared(self, now: float, reply: ApiReply | None, problem: str) -> list[Action]:
        self._to_clear -= 1
        if reply is None or not (reply.ok or reply.status == 404):
            why = problem if reply is None else f"HTTP {reply.status}: {reply.text()}"
            detail = f"XComs of an earlier try could not be cleared: {why}"
            return self._refuse(now, Cause(EndedBy.API_UNAVAILABLE, detail))
        return self._send_details(now)

    def _refuse(self, now: float, cause: Cause) -> list[Action]:
        notice = Log("error", "the task may not start; ending its runtime", {"reason": cause.detail})
        return self._stop(now, cause, 0.0, notice)

    def _send_details(self, now: float) -> list[Action]:
        """Send StartupDetails once: connected, allowed to run, and nothing left to clear."""
        if self._awaited or self._context is None or self._to_clear or self._phase is not Phase.BOOTING:
            return []
        details = startup_details(self._task, self._context, self._started_at)
        version = self._task.schema_version
        actions: list[Action] = []
        lost = schema.undelivered_arguments(details, version)
        if lost:
            fields = {"arguments": lost, "schema_version": version}
            actions.append(Log("warning", "the artifact's schema version has no arguments; they are not sent", fields))
        known = schema.downgrade(details, version)
        problem = msgpack_problem(known)
        if problem:
            cause = Cause(EndedBy.UNSENDABLE, f"the task's data cannot be sent: {problem}")
            return [*actions, *self._refuse(now, cause)]
        self._phase = Phase.RUNNING
        return [*actions, Send(frames.encode(0, known))]

    def _invalid(self, now: float, frame: frames.Frame, problem: str) -> list[Action]:
        """A message that is not valid: a request is refused, an end is taken for what it means."""
        end = ends.read(frame.body, datetime.now(UTC))
        if end.message is not None:
            fields = {"error": problem, "changes": end.notes}
            return [
                Log("warning", "the task's end is not valid; acting on what it means", fields),
                *self._terminal(now, frame, end.message),
            ]
        refusal = answer(frame.id, None, failure(REFUSED, problem))
        if not end.was_meant(in_answer=frame.is_answer and frame.id == 0):
            self.refused = problem
            return [Log("error", "cannot parse a message of the runtime", {"error": problem}), refusal]
        notice = LogRaw("the task's end cannot be understood; the try counts as failed", problem, frame.body)
        if self._said is None:
            self._garbled = f"the runtime's terminal message cannot be understood: {problem}"
            self._reported(now)
            self._timers.start(Timer.OVERTIME, now + self._times.task_success_overtime)
        return [notice] if frame.is_answer else [notice, refusal]

    def _reported(self, now: float) -> None:
        if self._phase in (Phase.BOOTING, Phase.RUNNING):
            self._phase = Phase.REPORTED
        self._timers.stop(Timer.HEARTBEAT, Timer.SILENCE, Timer.TASK_TIMEOUT, Timer.MUTE)

    def _terminal(self, now: float, frame: frames.Frame, message: m.Message) -> list[Action]:
        assert isinstance(message, m.TERMINAL_TYPES)
        reply: list[Action] = [] if frame.is_answer else [answer(frame.id, None)]
        if self._said is not None and (self._delivered or self._delivering):
            return [Log("warning", "ignoring a second terminal message", {"state": message.state}), *reply]
        self._why = ends.reason_in_full(message)
        message, notes = ends.within_limits(message)
        said: list[Action] = [Log("warning", "part of the task's end was changed", {"changes": notes})] if notes else []
        self._said, self._garbled = message, ""
        self._reported(now)
        at_once = isinstance(message, m.TaskState) or self._ended_by in SILENT
        request_id = None if frame.is_answer else frame.id
        if at_once or request_id is None:
            self._timers.start(Timer.OVERTIME, now + self._times.task_success_overtime)
        else:
            # the runtime waits for our answer, however long the Execution API takes
            self._timers.stop(Timer.OVERTIME)
        if at_once:
            return [*said, *reply]
        self._delivering = True
        call = requests.state_call(self._task.ti.id, message, newest=self._server.newest)
        return [*said, *self._left_out(message), self._call("terminal", call, message, request_id, frame.carrier)]

    def _left_out(self, message: m.Message) -> list[Action]:
        """Say what an older server cannot be told."""
        fields = [] if self._server.newest else requests.unknown_to_older(message)
        return [Log("warning", "the server is older than Airflow 3.4; not sent", {"fields": fields})] if fields else []

    def _served(self, now: float, call: Call, reply: ApiReply | None, problem: str) -> list[Action]:
        message = call.message
        assert message is not None
        body, error = interpreted(self._rows[type(message)], message, reply, problem)
        archived: list[Action] = []
        if call.purpose == "terminal":
            self._delivering, self._delivered = False, error is None
            if call.request_id is not None:
                self._timers.start(Timer.OVERTIME, now + self._times.task_success_overtime)
            archived = self._archived(now, reply)
        frame_id = call.request_id if "comm" in self._open else None
        return [*archived, *delivered(message, body, error, frame_id, self._task.whole_bits)]

    def _archived(self, now: float, reply: ApiReply | None) -> list[Action]:
        """The server has put this try away, because the task was cleared: what it did counts no more."""
        if reply is None or reply.status != 410:
            return []
        detail = f"the Execution API answered 410 to the task's end: {reply.text()}"
        self._cause = Cause(EndedBy.SERVER, detail)
        notice = Log("warning", "the server has archived this try", {"detail": detail})
        return [notice, *self._stop(now, self._cause, self._times.kill_grace)]

    def _end(self, now: float, ended_by: EndedBy, detail: str, grace: float, notice: Log | None = None) -> list[Action]:
        return self._stop(now, Cause(ended_by, detail), grace, notice)

    def _stop(self, now: float, cause: Cause, grace: float, notice: Log | None = None) -> list[Action]:
        """End the runtime: SIGTERM, `grace` seconds, SIGKILL. The first cause stands.

        Args:
            notice: why, for the log; left out if the runtime is being ended already and will not end any sooner.
        """
        if not self._phase.alive:
            return []
        self._cause = self._cause or cause
        why: list[Action] = [notice] if notice is not None else []
        if self._phase is Phase.STOPPING:
            kill = self._timers.at(Timer.KILL)
            # a later, more urgent cause shortens the wait
            if kill is None or now + grace >= kill:
                return []
            self._kill_within(now, grace)
            return why
        self._phase = Phase.STOPPING
        self._kill_within(now, grace)
        return [*why, Signal(signal.SIGTERM)]

    def _kill_within(self, now: float, grace: float) -> None:
        self._timers.start(Timer.KILL, now + grace)
        if self._task.exits_on_second_sigterm:
            self._timers.start(Timer.SECOND_SIGNAL, now + grace * SECOND_SIGNAL)

    # The end.

    def _maybe_conclude(self, now: float) -> list[Action]:
        """When the process is gone, its channels are drained and no call is out: decide and report."""
        if self._phase is not Phase.DRAINING:
            return []
        actions: list[Action] = []
        if self._open:
            if not (self._timers.is_due(Timer.DRAIN, now) or self._timers.is_due(Timer.QUIET, now)):
                return []
            fields = {"channels": sorted(self._open)}
            actions = [Log("warning", "the runtime is gone but its channels stay open; closing them", fields)]
            actions.append(CloseChannels())
            self._open.clear()
        self._timers.clear()
        if self._in_flight:
            return actions
        verdict = self._verdict = self._verdict or self._decide()
        final = None
        if self.allowed:
            final = final_call(self._task, self._pid, verdict, self._said, self._server)
        if final is not None:
            self._phase = Phase.FINALIZING
            return [*actions, self._call("final", final)]
        self._phase = Phase.DONE
        known = (EndedBy.SERVER, EndedBy.ALREADY_RUNNING, EndedBy.ALREADY_ENDED)
        return [*actions, Finish(verdict, self._exit, self._delivered or self._ended_by in known)]

    def _decide(self) -> Verdict:
        if self._garbled and self._ended_by in (None, EndedBy.OVERTIME):
            self._cause = Cause(EndedBy.PROTOCOL, self._garbled)
        cause = self._cause
        ending = Ending(
            exit=self._exit,
            said=self._said,
            why=self._why,
            delivered=self._delivered,
            should_retry=self._context is not None and bool(self._context.should_retry),
            ended_by=self._ended_by,
            detail=cause.detail if cause is not None else "",
            known_state=cause.known_state if cause is not None else "failed",
        )
        return decide(ending)

    def _finished(self, reply: ApiReply | None, problem: str) -> list[Action]:
        verdict = self._verdict
        assert verdict is not None
        self._phase = Phase.DONE
        if acknowledges(verdict, self._server):
            # refused (404, 409, 410), the server has gone on without it; if it does not answer, the executor's event
            # has the same effect
            return [Finish(verdict, self._exit, True)]
        if reply is not None and reply.status == 410:
            detail = f"the Execution API answered 410 to the task's end: {reply.text()}"
            notice = Log("warning", "the server has archived this try", {"detail": detail})
            return [notice, Finish(Verdict("failed", Reason.SERVER_TERMINATED, detail), self._exit, True)]
        reported = reply is not None and reply.ok
        actions: list[Action] = []
        if not reported:
            why = problem if reply is None else f"HTTP {reply.status}: {reply.text()}"
            actions.append(Log("error", "the final state could not be reported", {"error": why}))
        return [*actions, Finish(verdict, self._exit, reported)]


_RINGS = {
    Timer.STARTUP: Supervision._startup_is_over,
    Timer.EXECUTION: Supervision._execution_is_over,
    Timer.TASK_TIMEOUT: Supervision._task_timeout_is_over,
    Timer.MUTE: Supervision._stayed_mute,
    Timer.SILENCE: Supervision._no_heartbeat_was_answered,
    Timer.SECOND_SIGNAL: Supervision._signal_again,
    Timer.KILL: Supervision._kill,
    Timer.GIVE_UP: Supervision._give_up,
    Timer.OVERTIME: Supervision._overtime_is_over,
    Timer.HEARTBEAT: Supervision._beat,
}
"""What is done when a timer is due, in the order of `Timer`; DRAIN and QUIET only have the end looked at."""
