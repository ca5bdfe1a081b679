package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	maxMessage   = 1 << 20
	connectWait  = 60 * time.Second // for the bridge, unless POLYPOD_BRIDGE_WAIT says otherwise
	answerWait   = 2 * time.Second  // for the bridge to act on a signal that we were sent
	killGrace    = 5 * time.Second
	drainWait    = 5 * time.Second
	againWait    = 30 * time.Second // for the kubelet to start a bridge again that was killed
	againEvery   = 100 * time.Millisecond
	prSubreaper  = 36
	defaultPlace = "/polypod/bridge.sock"
)

// request is one packet from the bridge.
type request struct {
	Op     string            `json:"op"`
	Paths  []string          `json:"paths"`
	Argv   []string          `json:"argv"`
	Env    map[string]string `json:"env"`
	Native bool              `json:"native"`
	Number int               `json:"number"`
	Alone  bool              `json:"alone"`
	Peer   string            `json:"peer"`
	Local  string            `json:"local"`
}

// reply is one packet to the bridge; open descriptors go with it.
type reply struct {
	Pid     int      `json:"pid,omitempty"`
	Owns    bool     `json:"owns,omitempty"`
	Errors  []string `json:"errors,omitempty"`
	Error   string   `json:"error,omitempty"`
	Missing bool     `json:"missing,omitempty"`
}

// run serves the bridge until it has closed the connection, and returns the exit code.
func run() int {
	// PR_SET_PDEATHSIG of the runtime is about the thread that started it: this one, which stays
	runtime.LockOSThread()
	defer releaseStop()
	syscall.RawSyscall(syscall.SYS_PRCTL, prSubreaper, 1, 0)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGPIPE)

	place := os.Getenv("POLYPOD_SOCKET")
	if place == "" {
		place = defaultPlace
	}
	wait := bridgeWait(os.Getenv("POLYPOD_BRIDGE_WAIT"))
	connection, err := connect(place, wait, signals)
	switch {
	case errors.Is(err, errTerminated):
		complain(err)
		return exitBridge
	case isRefused(err):
		return fail(exitFailed, fmt.Errorf("user %d, group %d cannot connect to the bridge: %w; the task did not start",
			os.Getuid(), os.Getgid(), err))
	case err != nil:
		return fail(exitBridge, fmt.Errorf("the bridge did not answer within %s: %w; the task did not start", wait, err))
	}
	told, toBridge, err := os.Pipe()
	if err != nil {
		return fail(exitFailed, err)
	}
	s := &session{connection: connection, told: toBridge}
	// first of all the pipe by which the bridge hears of the signals that this container is sent
	if err := s.send(reply{Pid: os.Getpid()}, told); err != nil {
		complain(err)
		return exitBridge
	}
	code := s.serve(signals)
	if !s.done {
		s.holdThePod(signals, place, told)
	}
	return code
}

// holdThePod keeps this container, and so the pod, until the next start of a bridge that was killed has told what
// became of it and has brought the log where it is kept: a kubelet starts no sidecar again once this has ended.
func (s *session) holdThePod(signals <-chan os.Signal, place string, told *os.File) {
	giveUp := time.NewTimer(againWait)
	// in a pod that is being ended no container is started again
	for s.pending == 0 {
		connection, err := connect(place, 0, nil)
		if err == nil {
			s.connection = connection
			if s.send(reply{Pid: os.Getpid()}, told) == nil {
				// it has nothing to ask for; it lets us go when it is through
				connection.Read(make([]byte, maxMessage))
			}
			return
		}
		select {
		case received := <-signals:
			if number := received.(syscall.Signal); number == syscall.SIGTERM || number == syscall.SIGINT {
				return
			}
			if s.child != nil {
				s.child.reap()
			}
		case <-time.After(againEvery):
		case <-giveUp.C:
			return
		}
	}
}

var errTerminated = errors.New("terminated before the bridge was there")

// isRefused tells whether waiting does not help: this user may not use the bridge's socket, or its path cannot be one
// (unix(7): at most 107 bytes).
func isRefused(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)
}

// bridgeWait reads how many seconds the bridge may take: as long as the pod may take to start, by its TaskRun.
func bridgeWait(text string) time.Duration {
	seconds, err := strconv.ParseFloat(text, 64)
	if err == nil && seconds > 0 && seconds <= math.MaxInt32 {
		return time.Duration(seconds * float64(time.Second))
	}
	return connectWait
}

// connect waits for the bridge: its container was started before, but it may still be on its way. A pod that is ended
// meanwhile need not wait for one that will not come.
func connect(place string, patience time.Duration, signals <-chan os.Signal) (*net.UnixConn, error) {
	giveUp := time.Now().Add(patience)
	for {
		connection, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: place, Net: "unixpacket"})
		if err == nil || isRefused(err) || time.Now().After(giveUp) {
			return connection, err
		}
		select {
		case received := <-signals:
			if received == syscall.SIGTERM || received == syscall.SIGINT {
				return nil, errTerminated
			}
		case <-time.After(2 * time.Millisecond):
		}
	}
}

type session struct {
	connection *net.UnixConn
	told       *os.File
	child      *child
	ending     *ending
	done       bool
	answer     *time.Timer // runs while the bridge has not acted on a signal
	pending    syscall.Signal
}

func (s *session) serve(signals <-chan os.Signal) int {
	requests := make(chan request)
	go receive(s.connection, requests)
	s.answer = time.NewTimer(time.Hour)
	s.answer.Stop()
	for {
		var ended <-chan ending
		if s.child != nil {
			ended = s.child.ended
		}
		select {
		case received := <-signals:
			s.signalled(received.(syscall.Signal))
		case <-s.answer.C:
			if s.child != nil && s.ending == nil {
				s.child.signal(s.pending)
			}
		case how := <-ended:
			s.ending = &how
		case message, open := <-requests:
			if !open {
				return s.finish(signals)
			}
			if err := s.handle(message); err != nil {
				complain(err)
			}
		}
	}
}

func (s *session) signalled(number syscall.Signal) {
	if number == syscall.SIGCHLD {
		if s.child != nil {
			s.child.reap()
		}
		return
	}
	if number != syscall.SIGTERM && number != syscall.SIGINT {
		if s.child != nil && s.ending == nil {
			s.child.signal(number)
		}
		return
	}
	// the bridge decides: it knows the grace, and has to know why the task ends
	s.told.Write([]byte{byte(number)})
	s.pending = number
	s.answer.Reset(answerWait)
}

func receive(connection *net.UnixConn, requests chan<- request) {
	defer close(requests)
	buffer := make([]byte, maxMessage)
	for {
		n, err := connection.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		var message request
		if err := json.Unmarshal(buffer[:n], &message); err != nil {
			complain(fmt.Errorf("a packet of the bridge is not valid: %w", err))
			return
		}
		requests <- message
	}
}

func (s *session) handle(message request) error {
	switch message.Op {
	case "open":
		return s.open(message.Paths)
	case "spawn":
		return s.spawn(message)
	case "owns":
		return s.send(reply{Owns: s.child != nil && owns(s.child.pid, message.Peer, message.Local)})
	case "signal":
		s.answer.Stop()
		if s.child == nil || s.ending != nil {
			return nil
		}
		if message.Alone {
			s.child.signalAlone(syscall.Signal(message.Number))
		} else {
			s.child.signal(syscall.Signal(message.Number))
		}
		return nil
	case "end":
		if s.child != nil {
			s.child.endTree(s.ending != nil)
		}
		return nil
	case "done":
		s.done = true
		return nil
	}
	return fmt.Errorf("the bridge asks for %q, which is unknown", message.Op)
}

// open hands over the file system's root and then each path, as far as it can be opened.
func (s *session) open(paths []string) error {
	answer := reply{Errors: make([]string, len(paths))}
	var files []*os.File
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	root, err := openFolder("/")
	if err != nil {
		return s.send(reply{Error: err.Error()})
	}
	files = append(files, root)
	for i, path := range paths {
		folder, err := openFolder(path)
		if err != nil {
			answer.Errors[i] = describe(err)
			continue
		}
		files = append(files, folder)
	}
	return s.send(answer, files...)
}

func openFolder(path string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func describe(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return "does not exist"
	case errors.Is(err, syscall.ENOTDIR):
		return "is not a folder"
	}
	return "cannot be read: " + err.Error()
}

func (s *session) spawn(message request) error {
	if s.child != nil {
		return s.send(reply{Error: "a runtime was started already"})
	}
	made, files, err := spawn(message.Argv, message.Env, message.Native)
	if err != nil {
		missing := errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist)
		if _, there := exec.LookPath(message.Argv[0]); missing && there == nil {
			text := fmt.Sprintf("%q exists, but its interpreter or loader does not: a script's first line names it, "+
				"or the program was built for another C library", message.Argv[0])
			return s.send(reply{Error: text})
		}
		return s.send(reply{Error: err.Error(), Missing: missing})
	}
	s.child = made
	// it may have ended before there was a child to report to
	made.reap()
	err = s.send(reply{Pid: made.pid}, files...)
	for _, file := range files {
		file.Close()
	}
	return err
}

func (s *session) send(answer reply, files ...*os.File) error {
	message, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	var fds []int
	for _, file := range files {
		fds = append(fds, int(file.Fd()))
	}
	_, _, err = s.connection.WriteMsgUnix(message, syscall.UnixRights(fds...), nil)
	return err
}

// finish ends what is left after the bridge has closed the connection, whether it was done or is gone itself.
func (s *session) finish(signals <-chan os.Signal) int {
	if s.child == nil {
		complain(errors.New("the bridge has started nothing; its log and the TaskRun's status say why"))
		return exitBridge
	}
	if s.ending == nil {
		complain(errors.New("the bridge is gone; ending the runtime"))
		s.child.signal(syscall.SIGTERM)
		grace := time.NewTimer(killGrace)
		for s.ending == nil {
			select {
			case how := <-s.child.ended:
				s.ending = &how
			case received := <-signals:
				if number := received.(syscall.Signal); number == syscall.SIGTERM || number == syscall.SIGINT {
					s.pending = number
				}
				s.child.reap()
			case <-grace.C:
				s.child.endTree(false)
			}
		}
	}
	s.child.endTree(true)
	drained := make(chan struct{})
	go func() {
		s.child.streams.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainWait):
	}
	return s.ending.status()
}
