// Package airflow is what the author of a task imports: a bundle of task handlers, and the context of a running task.
//
//	func main() {
//		bundle := airflow.Bundle()
//		bundle.Register(airflow.TaskHandler("sales", "summarize", summarize))
//		if err := bundle.Serve(); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// The names and shapes are those of Airflow's own Go SDK 1.0.0, so that moving a task between the two is an import.
package airflow

import (
	"fmt"
	"reflect"
	"sync"

	"polypod.dev/sdk/go/internal/binding"
)

// BundleRef holds the task handlers of this program.
type BundleRef struct {
	mutex    sync.Mutex
	serving  bool
	handlers []*handler
}

// Bundle returns an empty bundle.
func Bundle() *BundleRef { return &BundleRef{} }

// Registerable is what a bundle takes: what TaskHandler returns.
type Registerable interface{ registerable() }

type handler struct {
	dagID, taskID string
	function      *binding.Function
}

func (*handler) registerable() {}

// TaskHandler makes fn the body of a task that a Dag declares with @task.stub, or that a TaskRun names.
//
// fn takes a Context first; every parameter after it is data, filled from the arguments of the call: by position, or
// by name if there is one and it is a struct. fn returns error, or (a result, error). A result that is not nil becomes
// the XCom "return_value". TaskHandler panics if fn has another form.
func TaskHandler(dagID, taskID string, fn any) Registerable {
	function, err := binding.New(fn, reflect.TypeFor[Context]())
	if err != nil {
		panic(fmt.Sprintf("airflow.TaskHandler(%q, %q): %v", dagID, taskID, err))
	}
	return &handler{dagID, taskID, function}
}

// Register adds task handlers. It panics if a task has a handler already, or after Serve was called.
func (b *BundleRef) Register(items ...Registerable) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.serving {
		panic("airflow.BundleRef.Register: Serve has been called; register everything before")
	}
	for _, item := range items {
		added, ok := item.(*handler)
		if !ok {
			panic(fmt.Sprintf("airflow.BundleRef.Register: cannot register %T", item))
		}
		if b.find(added.dagID, added.taskID) != nil {
			panic(fmt.Sprintf("airflow.BundleRef.Register: task %q of Dag %q has a handler already", added.taskID, added.dagID))
		}
		b.handlers = append(b.handlers, added)
	}
}

func (b *BundleRef) find(dagID, taskID string) *handler {
	for _, one := range b.handlers {
		if one.dagID == dagID && one.taskID == taskID {
			return one
		}
	}
	return nil
}

// tasks returns the task ids of each Dag, in the order of their registration.
func (b *BundleRef) tasks() map[string][]string {
	all := map[string][]string{}
	for _, one := range b.handlers {
		all[one.dagID] = append(all[one.dagID], one.taskID)
	}
	return all
}
