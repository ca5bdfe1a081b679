// The smallest task: the chart's `hello` queue leads to it, for a first TaskRun and for `helm test`.
package main

import (
	"fmt"
	"log"

	"polypod.dev/sdk/go/airflow"
)

func main() {
	bundle := airflow.Bundle()
	bundle.Register(airflow.TaskHandler("hello", "hello", hello))
	if err := bundle.Serve(); err != nil {
		log.Fatal(err)
	}
}

func hello(actx airflow.Context) (string, error) {
	actx.Logger().Info("this image holds one Go binary and nothing else")
	fmt.Println("hello")
	return "hello", nil
}
