// The smallest task: the chart's `hello` queue leads to it, for a first TaskRun and for `helm test`.
package main

import (
	"fmt"
	"log"
	"log/slog"

	v1 "polypod.dev/sdk/go/bundle/bundlev1"
	"polypod.dev/sdk/go/bundle/bundlev1/bundlev1server"
)

type bundle struct{}

func (bundle) GetBundleVersion() v1.BundleInfo { return v1.BundleInfo{Name: "hello"} }

func (bundle) RegisterDags(registry v1.Registry) error {
	registry.AddDag("hello").AddTask(hello)
	return nil
}

func main() {
	if err := bundlev1server.Serve(bundle{}); err != nil {
		log.Fatal(err)
	}
}

func hello(logger *slog.Logger) (string, error) {
	logger.Info("this image holds one Go binary and nothing else")
	fmt.Println("hello")
	return "hello", nil
}
