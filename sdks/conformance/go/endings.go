package main

import (
	"runtime"

	"polypod.dev/sdk/go/airflow"
)

// goexit ends its goroutine, as FailNow of a test or a mock does.
func goexit(_ airflow.Context) error {
	runtime.Goexit()
	return nil
}

// finishLate ignores SIGTERM at first: it still reads a variable and returns a value, so it succeeds.
func finishLate(ctx airflow.Context) (any, error) {
	ctx.Logger().Info("waiting")
	<-ctx.Done()
	value, err := ctx.Client().GetVariable(ctx, "conformance_in")
	return []any{"late", value}, err
}
