// Command polypod-launcher is PID 1 of the language container. It does there what the bridge, in another container,
// cannot: open the artifact roots, start the runtime, signal it, reap it and tell how it ended. See README.md.
package main

import (
	"fmt"
	"os"
)

const (
	// exitBridge is the exit code when nothing was started: the outcome, and why, are the bridge's to tell.
	exitBridge = 125
	// exitFailed is the exit code when this program could not do its own work; another try would not help.
	exitFailed = 126
)

// terminationLog is where the kubelet takes a container's termination message from; it has made the file.
var terminationLog = "/dev/termination-log"

const usage = `usage: polypod-launcher                  connect to the bridge at $POLYPOD_SOCKET and run what it asks for
       polypod-launcher install FILE     put a copy of this program at FILE
       polypod-launcher copy FROM… TO    copy files and folders into the folder TO
       polypod-launcher hold COMMAND…    execute a command with SIGTERM blocked, until it unblocks it
       polypod-launcher stop             send SIGTERM to the launcher of this container, and wait for its end
`

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		os.Exit(run())
	}
	var err error
	switch {
	case arguments[0] == "install" && len(arguments) == 2:
		err = install(arguments[1])
	case arguments[0] == "copy" && len(arguments) >= 3:
		err = copyAll(arguments[1:len(arguments)-1], arguments[len(arguments)-1])
	case arguments[0] == "hold" && len(arguments) >= 2:
		err = hold(arguments[1:])
	case arguments[0] == "stop" && len(arguments) == 1:
		stop()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		complain(err)
		os.Exit(1)
	}
}

// fail says why nothing could run, in the log and in the container's termination message; it returns the exit code.
func fail(code int, err error) int {
	complain(err)
	if file, failed := os.OpenFile(terminationLog, os.O_WRONLY|os.O_TRUNC, 0); failed == nil {
		fmt.Fprintln(file, "polypod-launcher:", err)
		file.Close()
	}
	return code
}

func complain(err error) {
	fmt.Fprintln(os.Stderr, "polypod-launcher:", err)
}
