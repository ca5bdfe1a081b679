package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

// ending is how the runtime ended, as the bridge reads it from the exit pipe.
type ending struct {
	Code       *int    `json:"code"`
	Signal     *int    `json:"signal"`
	PeakMemory int64   `json:"peak_memory"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// status is the exit code that this program takes over: PID 1 cannot end itself by a signal.
func (e ending) status() int {
	if e.Signal != nil {
		return 128 + *e.Signal
	}
	return *e.Code
}

// child is the one runtime that was started.
type child struct {
	pid     int
	exit    *os.File // the end that is written to, once
	streams sync.WaitGroup
	ended   chan ending
}

// spawn starts a program in a session of its own. It returns the ends that the bridge reads: stdout, stderr, exit.
// A native bundle may have lost its executable bit.
func spawn(argv []string, set map[string]string, native bool) (*child, []*os.File, error) {
	if len(argv) == 0 {
		return nil, nil, errors.New("there is no command to run")
	}
	program := argv[0]
	if native {
		var err error
		if program, err = executable(program); err != nil {
			return nil, nil, err
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, nil, err
	}
	made := &child{ended: make(chan ending, 1)}
	var files, handed []*os.File
	for _, own := range []*os.File{os.Stdout, os.Stderr} {
		fromChild, toUs, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		fromUs, toBridge, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		files, handed = append(files, toUs), append(handed, fromUs)
		made.streams.Add(1)
		go func() {
			defer made.streams.Done()
			tee(fromChild, own, toBridge)
		}()
	}
	exitRead, exitWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	made.exit = exitWrite
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	made.pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   environment(argv, set),
		Files: []uintptr{null.Fd(), files[0].Fd(), files[1].Fd()},
		// killed with us, should this program not be PID 1 of its namespace
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	for _, file := range files {
		file.Close()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return made, append(handed, exitRead), nil
}

// environment is the container's own, with set on top; what is ours alone is left out. A command that is not ASCII gets
// a locale in which it can be read: a JVM finds no größe/app.jar in the locale C.
func environment(argv []string, set map[string]string) []string {
	set = maps.Clone(set)
	if !isASCII(strings.Join(argv, "")) && !speaksUTF8() {
		if set == nil {
			set = map[string]string{}
		}
		set["LC_ALL"] = "C.UTF-8"
	}
	var result []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, again := set[name]; !again && !strings.HasPrefix(name, "POLYPOD_") {
			result = append(result, entry)
		}
	}
	for name, value := range set {
		result = append(result, name+"="+value)
	}
	return result
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// speaksUTF8 tells whether the locale of the container is one of UTF-8 (POSIX, Environment Variables, §8.2).
func speaksUTF8() bool {
	effective := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"))
	return strings.Contains(strings.ReplaceAll(strings.ToLower(effective), "-", ""), "utf8")
}

// tee copies a stream of the runtime to the container's own log and to the bridge. A slow reader slows the runtime
// down and loses nothing; a reader that is gone is left out.
func tee(from, own, bridge *os.File) {
	writers := []*os.File{own, bridge}
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		for i, writer := range writers {
			if writer == nil || n == 0 {
				continue
			}
			if _, failed := writer.Write(buffer[:n]); failed != nil {
				writers[i] = nil
			}
		}
		if err != nil {
			if err != io.EOF {
				complain(err)
			}
			break
		}
	}
	from.Close()
	bridge.Close()
}

// reap collects every process that has ended, the runtime's orphans included, which become children of PID 1.
func (c *child) reap() {
	for {
		var status syscall.WaitStatus
		var usage syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid == c.pid {
			c.report(status, usage)
		}
	}
}

func (c *child) report(status syscall.WaitStatus, usage syscall.Rusage) {
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	result := ending{PeakMemory: usage.Maxrss * 1024, CPUSeconds: seconds(usage.Utime) + seconds(usage.Stime)}
	if status.Signaled() {
		number := int(status.Signal())
		result.Signal = &number
	} else {
		code := status.ExitStatus()
		result.Code = &code
	}
	if message, err := json.Marshal(result); err == nil {
		c.exit.Write(message)
	}
	c.exit.Close()
	c.ended <- result
}

// signal reaches the runtime and what it has started; none left is no error.
func (c *child) signal(number syscall.Signal) {
	syscall.Kill(-c.pid, number)
}

// signalAlone reaches the runtime's own process only.
func (c *child) signalAlone(number syscall.Signal) {
	syscall.Kill(c.pid, number)
}

// endTree ends every process of the runtime's tree. Once the runtime itself is collected its pid may be another's.
func (c *child) endTree(collected bool) {
	for _, pid := range tree(c.pid) {
		if pid != c.pid || !collected {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if os.Getpid() == 1 {
		// what has left both the tree and the session has come to us
		syscall.Kill(-1, syscall.SIGKILL)
	}
}
