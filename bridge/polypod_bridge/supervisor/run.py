"""The shell around the state machine: sockets, threads and processes.

The main thread waits on the listeners, the comm socket and the process's end, and drives `Supervision`. Beside it:
a thread that pumps logs, one that sends API calls in order, and, for tasks that live long enough, one for heartbeats.
"""

from __future__ import annotations

import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from polypod_bridge.api.client import ApiUnavailable, ExecutionApiClient
from polypod_bridge.comm import ends, frames
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.pipeline import TaskLog
from polypod_bridge.logs.pump import LogPump
from polypod_bridge.process.base import Process
from polypod_bridge.process.ownership import canonical
from polypod_bridge.secrets import ConnectionFormatError, SecretStore
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
    MaskConnection,
    Send,
    Signal,
    StopRetrying,
)
from polypod_bridge.supervisor.listeners import Listeners
from polypod_bridge.supervisor.state import Supervision

_READ_SIZE = 256 << 10
_POLL = 0.2
_MAX_QUEUED_CALLS = 64
_OWNERSHIP_WAIT = 1.0
_RAW_SHOWN = 1000
"""Characters that the log shows of a message that cannot be read."""
_MOST_MASKED = 256 << 10
_LONGEST_WAIT = 3600.0
"""Seconds: epoll takes no more than some weeks."""


class Shell:
    """Carries out one attempt, from a started runtime to its verdict."""

    def __init__(
        self,
        supervision: Supervision,
        process: Process,
        listeners: Listeners,
        client: ExecutionApiClient,
        secrets: SecretStore,
        log: TaskLog,
        masker: Masker,
        caught: list[int],
    ) -> None:
        """Take over a started runtime; `caught` holds the signals that came before there was a shell."""
        self._caught = caught
        self._state = supervision
        self._process = process
        self._client = client
        self._secrets = secrets
        self._log = log
        self._masker = masker
        self._events: queue.SimpleQueue[Callable[[float], list[Action]]] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._queued = 0
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._comm: socket.socket | None = None
        self._reader = frames.FrameReader()
        self._out = bytearray()
        self._finish: Finish | None = None
        self._listeners = {id(listener): (name, listener) for name, listener in listeners.items()}
        self._pump = LogPump(log, masker, self._stream_ended)
        self._beats: queue.SimpleQueue[Beat | None] | None = None
        self.connect_time: datetime | None = None
        """When the runtime connected."""

    def run(self) -> Finish:
        """Supervise until the end; always returns."""
        self._selector.register(self._wake_r, selectors.EVENT_READ, "wake")
        for name, listener in self._listeners.values():
            self._selector.register(listener, selectors.EVENT_READ, name)
        if self._process.exit_fd is not None:
            self._selector.register(self._process.exit_fd, selectors.EVENT_READ, "exit")
        self._pump.add("stdout", self._process.stdout)
        self._pump.add("stderr", self._process.stderr)
        threading.Thread(target=self._work, name="api", daemon=True).start()
        restore = self._catch_signals()
        try:
            self._do(self._state.spawned(time.monotonic(), self._process.pid, datetime.now(UTC)))
            while self._finish is None:
                self._turn()
        finally:
            restore()
            self._clean_up()
        return self._finish

    def _turn(self) -> None:
        """Wait for something to happen and handle it."""
        due = self._state.deadline()
        now = time.monotonic()
        timeout = min(max(0.0, due - now), _LONGEST_WAIT) if due is not None else None
        if self._process.exit_fd is None:
            timeout = min(timeout, _POLL) if timeout is not None else _POLL
        ended = False
        for key, mask in self._selector.select(timeout):
            if key.data == "wake":
                self._drain_wakes()
            elif key.data == "exit":
                ended = True
            elif key.data == "traffic":
                self._traffic(mask)
            else:
                self._accept(key.data, key.fileobj)
        if ended or self._process.exit_fd is None:
            self._check_exit()
        while not self._events.empty():
            self._do(self._events.get()(time.monotonic()))
        now = time.monotonic()
        self._state.read(self._pump.last_read)
        due = self._state.deadline()
        if due is not None and now >= due:
            self._do(self._state.tick(now))

    # The runtime's connections.

    def _accept(self, name: str, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        local = connection.getsockname()
        # the lines of a runtime that is gone already must not be lost, and whose they are cannot be told any more
        gone = self._process.poll() is not None
        if not gone and not self._owned((canonical(peer[0]), peer[1]), (canonical(local[0]), local[1])):
            # if the runtime has exited by now, the owner of the connection can no longer be found
            gone = self._process.poll() is not None
            owned = False
        else:
            owned = not gone
        if gone and name != "logs":
            # it can ask nothing any more, and a stranger must not speak for it
            connection.close()
            self._state.came(name)
            return
        if not gone and not owned:
            self._log.event("warning", "a connection from outside the runtime's processes was refused", channel=name)
            connection.close()
            return
        self._selector.unregister(listener)
        listener.close()
        del self._listeners[id(listener)]
        if name == "logs":
            self._pump.add("logs", connection.detach())
        else:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._comm = connection
            self.connect_time = datetime.now(UTC)
            self._selector.register(connection, selectors.EVENT_READ, "traffic")
        self._do(self._state.connected(time.monotonic(), name))

    def _owned(self, peer: tuple[str, int], local: tuple[str, int]) -> bool:
        # a new connection may not be in /proc yet the moment it is accepted
        give_up = time.monotonic() + _OWNERSHIP_WAIT
        while not self._process.owns(peer, local):
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.01)
        return True

    def _traffic(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if mask & selectors.EVENT_READ and self._comm is not None:
            try:
                data = self._comm.recv(_READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            now = time.monotonic()
            self._state.read(now)
            if not data:
                self._close_comm()
                return
            try:
                received = self._reader.feed(data)
            except frames.FrameError as error:
                self._do(self._state.broken(now, str(error), error.raw))
                self._close_comm()
                return
            for frame in received:
                self._do(self._state.frame(now, frame))
            self._watch_comm()

    def _flush(self) -> None:
        if self._comm is None or not self._out:
            return
        try:
            sent = self._comm.send(self._out)
            del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
        self._watch_comm()

    def _watch_comm(self) -> None:
        """Listen for what makes sense now: a runtime that asks faster than it can be served has to wait."""
        if self._comm is None:
            return
        events = selectors.EVENT_WRITE if self._out else 0
        if self._queued < _MAX_QUEUED_CALLS:
            events |= selectors.EVENT_READ
        if events == 0:
            if self._comm in self._selector.get_map():
                self._selector.unregister(self._comm)
        elif self._comm in self._selector.get_map():
            self._selector.modify(self._comm, events, "traffic")
        else:
            self._selector.register(self._comm, events, "traffic")

    def _close_comm(self) -> None:
        if self._comm is None:
            return
        if self._comm in self._selector.get_map():
            self._selector.unregister(self._comm)
        # at once: Node does not exit before our side is closed
        self._comm.close()
        self._comm = None
        if self._reader.pending:
            self._log.event("warning", "the comm socket ended within a frame", bytes=self._reader.pending)
        self._do(self._state.closed(time.monotonic(), "comm"))

    def _check_exit(self) -> None:
        ended = self._process.poll()
        if ended is None:
            return
        # without its runtime there is nothing left to start
        self._client.lose_patience()
        if self._process.exit_fd is not None:
            self._selector.unregister(self._process.exit_fd)
            self._process.close()
        for name, listener in list(self._listeners.values()):
            # it may have connected and ended before we looked
            self._accept(name, listener)
        for _, listener in self._listeners.values():
            self._selector.unregister(listener)
            listener.close()
        self._listeners.clear()
        self._do(self._state.exited(time.monotonic(), ended))

    # Actions.

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Call():
                    self._queued += 1
                    self._calls.put(self._masked(action))
                case LookUp():
                    self._do(self._look_up(action))
                case Send(data):
                    self._out += data
                    self._flush()
                case Log(level, event, fields):
                    self._log.event(level, event, **fields)
                case LogRaw(event, problem, raw):
                    # masked before it is cut: half a secret is no secret that the masker knows
                    text = self._masker.text(ends.shown(raw[:_MOST_MASKED]))
                    shown = text if len(text) <= _RAW_SHOWN else f"{text[:_RAW_SHOWN]}…"
                    self._log.event("error", event, error=problem, raw=shown, raw_bytes=len(raw))
                case Mask(value, name):
                    self._masker.add(value, name)
                case MaskConnection(password, extra):
                    self._masker.add_connection(password, extra)
                case Beat():
                    self._beat(action)
                case Signal(number, alone):
                    self._process.signal(number, alone=alone)
                case EndTree():
                    self._process.end_tree()
                case CloseChannels():
                    self._close_comm()
                    self._pump.stop(timeout=5.0)
                case StopRetrying():
                    self._client.stop_retrying()
                case Finish():
                    self._finish = action

    def _masked(self, action: Call) -> Call:
        """Return a call without secrets in what people read: the server stores that and shows it in its UI."""
        body = action.call.body
        if not isinstance(body, dict):
            return action
        said = {name: body[name] for name in ends.TEXTS if isinstance(body.get(name), str)}
        if not said:
            return action
        hidden = {name: self._masker.cut_text(text)[: ends.TEXTS[name]] for name, text in said.items()}
        return replace(action, call=replace(action.call, body={**body, **hidden}))

    @property
    def last_error(self) -> str:
        """The first line of the last error that the runtime has logged, empty if it has logged none."""
        return self._pump.last_error

    @property
    def last_output(self) -> str:
        """The last line of the runtime's standard error that looks like an error, empty if there was none."""
        return self._pump.last_output

    # Other threads report here.

    def _post(self, event: Callable[[float], list[Action]]) -> None:
        self._events.put(event)
        try:
            os.write(self._wake_w, b"\0")
        except BlockingIOError:
            pass

    def _drain_wakes(self) -> None:
        try:
            os.read(self._wake_r, 4096)
        except BlockingIOError:
            pass

    def _stream_ended(self, name: str) -> None:
        self._post(lambda now: self._state.closed(now, name))

    def _work(self) -> None:
        """The API thread: sends calls one after the other."""
        while (call := self._calls.get()) is not None:
            reply, problem = self._perform(call)
            self._post(partial(self._replied, call, reply, problem))

    def _replied(self, call: Call, reply: ApiReply | None, problem: str, now: float) -> list[Action]:
        self._queued -= 1
        actions = self._state.replied(now, call, reply, problem)
        self._watch_comm()
        return actions

    def _look_up(self, ask: LookUp) -> list[Action]:
        try:
            return self._state.looked_up(ask, self._secrets.answer(ask.message))
        except ConnectionFormatError as error:
            return self._state.looked_up(ask, None, str(error))
        except Exception as error:
            # whatever it is, the runtime waits for an answer; what it says may be of the secret
            return self._state.looked_up(ask, None, f"the look-up failed: {type(error).__name__}")

    def _perform(self, call: Call) -> tuple[ApiReply | None, str]:
        try:
            # until it may run, a task has nothing to lose by waiting for the server
            return self._client.call(call.call, call.carrier, patient=call.purpose == "run"), ""
        except ApiUnavailable as error:
            return None, str(error)
        except Exception as error:
            # whatever it is, the runtime waits for an answer
            return None, f"{type(error).__name__}: {error}"

    def _beat(self, beat: Beat) -> None:
        if self._beats is None:
            self._beats = queue.SimpleQueue()
            threading.Thread(target=self._heartbeats, args=(self._beats,), name="heartbeat", daemon=True).start()
        self._beats.put(beat)

    def _heartbeats(self, beats: queue.SimpleQueue[Beat | None]) -> None:
        """The heartbeat thread: a slow call of the task must not keep the server waiting for a sign of life."""
        while (beat := beats.get()) is not None:
            reply: ApiReply | None = None
            problem = ""
            try:
                # once: what counts is the time since the last one that was answered, and the next is soon
                reply = self._client.call(beat.call, most_attempts=1)
            except Exception as error:
                problem = str(error)
            self._post(partial(self._beaten, reply, problem))

    def _beaten(self, reply: ApiReply | None, problem: str, now: float) -> list[Action]:
        return self._state.beaten(now, reply, problem)

    def _catch_signals(self) -> Callable[[], None]:
        def told(number: int, frame: object) -> None:
            self._post(lambda now: self._state.signalled(now, number))

        previous = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}

        for number in self._caught:
            told(number, None)

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        return restore

    def _clean_up(self) -> None:
        self._calls.put(None)
        if self._beats is not None:
            self._beats.put(None)
        self._client.stop_retrying()
        self._process.end_tree()
        self._process.close()
        if self._comm is not None:
            self._comm.close()
        self._pump.stop(timeout=5.0)
        self._selector.close()
