// Package task turns a plain function into a task: what it asks for is injected by type, the rest is data.
package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

var (
	contextType    = reflect.TypeFor[context.Context]()
	runContextType = reflect.TypeFor[sdk.TIRunContext]()
	loggerType     = reflect.TypeFor[*slog.Logger]()
	clientType     = reflect.TypeFor[sdk.Client]()
	errorType      = reflect.TypeFor[error]()
)

// Task is a checked task function.
type Task struct {
	fn   reflect.Value
	data []int
}

// Binding is one argument of the stub call (schema 2026-10-30).
type Binding struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	TaskID string `json:"task_id"`
	Value  any    `json:"value"`
}

// New checks a function: it must return error, or (a value, error).
func New(fn any) (*Task, error) {
	value := reflect.ValueOf(fn)
	if value.Kind() != reflect.Func {
		return nil, fmt.Errorf("a task is a function, not %T", fn)
	}
	kind := value.Type()
	if kind.IsVariadic() {
		return nil, errors.New("a task's parameters cannot be variadic")
	}
	if n := kind.NumOut(); n < 1 || n > 2 || kind.Out(n-1) != errorType {
		return nil, errors.New("a task returns error, or (value, error)")
	}
	made := &Task{fn: value}
	for index := range kind.NumIn() {
		if !injected(kind.In(index)) {
			made.data = append(made.data, index)
		}
	}
	return made, nil
}

func injected(kind reflect.Type) bool {
	if kind == loggerType || kind == contextType || kind == runContextType {
		return true
	}
	return kind.Kind() == reflect.Interface && kind.NumMethod() > 0 && clientType.Implements(kind)
}

// Run calls the function. The result is what it returned, nil if it returns only an error.
func (t *Task) Run(ctx sdk.TIRunContext, client sdk.Client, logger *slog.Logger, bindings []Binding) (any, error) {
	kind := t.fn.Type()
	arguments := make([]reflect.Value, kind.NumIn())
	for index := range arguments {
		switch in := kind.In(index); {
		case in == loggerType:
			arguments[index] = reflect.ValueOf(logger)
		case in == contextType || in == runContextType:
			arguments[index] = reflect.ValueOf(ctx)
		case injected(in):
			arguments[index] = reflect.ValueOf(client)
		}
	}
	if err := t.bind(ctx, client, arguments, bindings); err != nil {
		return nil, err
	}
	results := t.fn.Call(arguments)
	err, _ := results[len(results)-1].Interface().(error)
	if err != nil || len(results) == 1 {
		return nil, err
	}
	return results[0].Interface(), nil
}

func (t *Task) bind(ctx sdk.TIRunContext, client sdk.Client, arguments []reflect.Value, bindings []Binding) error {
	if len(t.data) == 0 && len(bindings) == 0 {
		return nil
	}
	kind := t.fn.Type()
	if bindings == nil {
		return fmt.Errorf("the task takes %d argument(s) and was given none: the Dag calls it without, or the bundle "+
			"was packed for supervisor schema 2026-06-16, which has no arguments", len(t.data))
	}
	if len(t.data) == 1 && byName(kind.In(t.data[0]), bindings) {
		structure := reflect.New(kind.In(t.data[0])).Elem()
		if err := bindStruct(ctx, client, structure, bindings); err != nil {
			return err
		}
		arguments[t.data[0]] = structure
		return nil
	}
	if len(t.data) != len(bindings) {
		return fmt.Errorf("the task takes %d argument(s) and was given %d (%s)", len(t.data), len(bindings), names(bindings))
	}
	for place, binding := range bindings {
		pointer := reflect.New(kind.In(t.data[place]))
		if err := decode(ctx, client, binding, pointer); err != nil {
			return err
		}
		arguments[t.data[place]] = pointer.Elem()
	}
	return nil
}

func byName(kind reflect.Type, bindings []Binding) bool {
	if kind.Kind() != reflect.Struct {
		return false
	}
	fields := map[string]bool{}
	for index := range kind.NumField() {
		field := kind.Field(index)
		if !field.IsExported() {
			continue
		}
		if _, tagged := field.Tag.Lookup("arg"); tagged {
			return true
		}
		fields[normal(field.Name)] = true
	}
	for _, binding := range bindings {
		if !fields[normal(binding.Name)] {
			return false
		}
	}
	return len(bindings) > 0
}

func bindStruct(ctx sdk.TIRunContext, client sdk.Client, structure reflect.Value, bindings []Binding) error {
	kind := structure.Type()
	left := map[string]Binding{}
	for _, binding := range bindings {
		left[normal(binding.Name)] = binding
	}
	for index := range kind.NumField() {
		field := kind.Field(index)
		if !field.IsExported() {
			continue
		}
		name := field.Name
		if tag, tagged := field.Tag.Lookup("arg"); tagged {
			name = tag
		}
		binding, given := left[normal(name)]
		if !given {
			return fmt.Errorf("the task's argument %q was not given; given: %s", name, names(bindings))
		}
		delete(left, normal(name))
		if err := decode(ctx, client, binding, structure.Field(index).Addr()); err != nil {
			return err
		}
	}
	for _, binding := range left {
		return fmt.Errorf("the task has no argument %q", binding.Name)
	}
	return nil
}

func decode(ctx sdk.TIRunContext, client sdk.Client, binding Binding, pointer reflect.Value) error {
	value := binding.Value
	if binding.Kind == "xcom" {
		ti := ctx.TaskInstance()
		found, err := client.GetXCom(ctx, ti.DagID, ti.RunID, binding.TaskID, nil, sdk.XComReturnValueKey, nil)
		if err != nil && !errors.Is(err, sdk.XComNotFound) {
			return fmt.Errorf("argument %q: %w", binding.Name, err)
		}
		value = found
	}
	if err := wire.Into(value, pointer.Interface()); err != nil {
		return fmt.Errorf("argument %q does not fit %s: %w", binding.Name, pointer.Type().Elem(), err)
	}
	return nil
}

// normal makes names match whatever their case and underscores.
func normal(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

func names(bindings []Binding) string {
	all := make([]string, len(bindings))
	for index, binding := range bindings {
		all[index] = binding.Name
	}
	return strings.Join(all, ", ")
}
