// Package bundlev1 collects the task functions of a bundle.
package bundlev1

import (
	"fmt"
	"reflect"
	"runtime"
	"sort"
	"strings"

	"polypod.dev/sdk/go/internal/task"
)

// BundleInfo names a bundle.
type BundleInfo struct {
	Name    string
	Version *string
}

// BundleProvider is what a bundle's main package implements.
type BundleProvider interface {
	GetBundleVersion() BundleInfo
	RegisterDags(registry Registry) error
}

// Registry takes Dags.
type Registry interface {
	// AddDag returns the Dag of this id; adding it twice is a mistake and panics.
	AddDag(dagID string) Dag
}

// Dag takes task functions.
type Dag interface {
	// AddTask adds a function under its own name.
	AddTask(fn any)
	// AddTaskWithName adds a function under a name.
	AddTaskWithName(taskID string, fn any)
}

// Bundle is a filled registry.
type Bundle interface {
	Registry
	// Lookup returns a task, and whether there is one.
	Lookup(dagID, taskID string) (*task.Task, bool)
	// Tasks returns every Dag's task ids, sorted.
	Tasks() map[string][]string
}

// New returns an empty bundle.
func New() Bundle { return &bundle{map[string]*dag{}} }

type bundle struct{ dags map[string]*dag }

type dag struct {
	id    string
	tasks map[string]*task.Task
}

func (b *bundle) AddDag(dagID string) Dag {
	if _, exists := b.dags[dagID]; exists {
		panic(fmt.Sprintf("Dag %q is added twice", dagID))
	}
	added := &dag{dagID, map[string]*task.Task{}}
	b.dags[dagID] = added
	return added
}

func (d *dag) AddTask(fn any) { d.AddTaskWithName(functionName(fn), fn) }

func (d *dag) AddTaskWithName(taskID string, fn any) {
	if _, exists := d.tasks[taskID]; exists {
		panic(fmt.Sprintf("task %q is added twice to Dag %q", taskID, d.id))
	}
	made, err := task.New(fn)
	if err != nil {
		panic(fmt.Sprintf("task %q of Dag %q: %v", taskID, d.id, err))
	}
	d.tasks[taskID] = made
}

func (b *bundle) Lookup(dagID, taskID string) (*task.Task, bool) {
	found, ok := b.dags[dagID]
	if !ok {
		return nil, false
	}
	made, ok := found.tasks[taskID]
	return made, ok
}

func (b *bundle) Tasks() map[string][]string {
	all := map[string][]string{}
	for id, found := range b.dags {
		ids := make([]string, 0, len(found.tasks))
		for taskID := range found.tasks {
			ids = append(ids, taskID)
		}
		sort.Strings(ids)
		all[id] = ids
	}
	return all
}

func functionName(fn any) string {
	value := reflect.ValueOf(fn)
	if value.Kind() != reflect.Func {
		panic(fmt.Sprintf("a task is a function, not %T", fn))
	}
	full := runtime.FuncForPC(value.Pointer()).Name()
	name := full[strings.LastIndexByte(full, '.')+1:]
	return strings.TrimSuffix(name, "-fm")
}
