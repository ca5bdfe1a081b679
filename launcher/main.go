// Command polypod-launcher is PID 1 of the language container. It does there what the bridge, in another container,
// cannot: open the artifact roots, start the runtime, signal it, reap it and tell how it ended. See README.md.
package main

import (
	"fmt"
	"os"
)

// exitBridge is the exit code when nothing was started: the outcome, and why, are the bridge's to tell.
const exitBridge = 125

const usage = `usage: polypod-launcher                  connect to the bridge at $POLYPOD_SOCKET and run what it asks for
       polypod-launcher install FILE     put a copy of this program at FILE
       polypod-launcher copy FROM… TO    copy files and folders into the folder TO
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
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		complain(err)
		os.Exit(1)
	}
}

func complain(err error) {
	fmt.Fprintln(os.Stderr, "polypod-launcher:", err)
}
