package main

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	sigBlock   = 0 // SIG_BLOCK of rt_sigprocmask
	stopEvery  = 20 * time.Millisecond
	stopLeaves = time.Second // for `stop` to exit before the container ends around it
)

// hold executes a command with SIGTERM blocked. The kernel drops a signal to PID 1 that has no handler yet, so a bridge
// that is terminated while it boots would not notice; a blocked one waits.
func hold(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// the mask is the thread's, and the new program's is that of the thread that executes it
	runtime.LockOSThread()
	mask := uint64(1) << (syscall.SIGTERM - 1)
	_, _, failed := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigBlock, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	if failed != 0 {
		return failed
	}
	return syscall.Exec(path, argv, os.Environ())
}

// stop is the container's preStop hook: whatever STOPSIGNAL the image has, its task gets SIGTERM first. It returns when
// the launcher is about to exit, so that the kubelet has nothing left to send its signal to.
func stop() {
	leaving := make(chan os.Signal, 1)
	signal.Notify(leaving, syscall.SIGTERM)
	for _, launcher := range running(os.Args[0]) {
		syscall.Kill(launcher, syscall.SIGTERM)
		for waits := true; waits && syscall.Kill(launcher, 0) == nil; {
			select {
			case <-leaving:
				waits = false
			case <-time.After(stopEvery):
			}
		}
	}
}

// releaseStop ends a `stop` that waits for us before the container ends around it: killed, it would be a failed hook.
func releaseStop() {
	for end := time.Now().Add(stopLeaves); time.Now().Before(end); time.Sleep(stopEvery) {
		waiting := running(os.Args[0] + " stop")
		if len(waiting) == 0 {
			return
		}
		for _, pid := range waiting {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
}

// running returns the other processes that have this command line.
func running(command string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err == nil && strings.ReplaceAll(strings.TrimSuffix(string(line), "\x00"), "\x00", " ") == command {
			found = append(found, pid)
		}
	}
	return found
}
