// Package binding calls a task's function with the arguments of the stub call (schema 2026-10-30).
//
// Upstream's rules (contributing-docs/30, ADR 0006 of its Go SDK): several parameters are bound by position, where
// arguments that nobody passed are dropped if the number fits then; one struct is bound by name, where what matches
// nothing is a warning and no error.
package binding

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"polypod.dev/sdk/go/internal/wire"
)

var errorType = reflect.TypeFor[error]()

// Argument is one argument of the stub call.
type Argument struct {
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	TaskID      string `json:"task_id"`
	Value       any    `json:"value"`
	FromDefault bool   `json:"from_default"`
}

// Function is a checked task function.
type Function struct {
	fn     reflect.Value
	params []reflect.Type
}

// Caller is what a call needs besides the arguments themselves.
type Caller struct {
	// Pull returns what another task of this run has returned, nil if nothing.
	Pull func(taskID string) (any, error)
	// Warn is told of what does not match.
	Warn func(message string, names ...any)
	// OlderSchema says that the supervisor's schema has no arguments, so that the Dag may have passed some.
	OlderSchema bool
}

// New checks a function: its first parameter is of type first, and it returns error, or (a value, error).
func New(fn any, first reflect.Type) (*Function, error) {
	value := reflect.ValueOf(fn)
	if value.Kind() != reflect.Func || value.IsNil() {
		return nil, fmt.Errorf("a task is a function, not %T", fn)
	}
	kind := value.Type()
	if kind.IsVariadic() {
		return nil, errors.New("a task's parameters cannot be variadic")
	}
	if kind.NumIn() < 1 || kind.In(0) != first {
		return nil, fmt.Errorf("a task takes %s as its first parameter", first)
	}
	if n := kind.NumOut(); n < 1 || n > 2 || kind.Out(n-1) != errorType {
		return nil, errors.New("a task returns error, or (value, error)")
	}
	made := &Function{fn: value}
	for index := 1; index < kind.NumIn(); index++ {
		made.params = append(made.params, kind.In(index))
	}
	if len(made.params) > 1 {
		for _, param := range made.params {
			if tagged(param) {
				return nil, fmt.Errorf("%s has arg tags, and is not the only parameter: it is bound by position", param)
			}
		}
	}
	return made, nil
}

// Call calls the function. The result is what it returned, nil if it returns only an error.
func (f *Function) Call(first any, caller Caller, given []Argument) (any, error) {
	arguments, err := f.bind(caller, given)
	if err != nil {
		return nil, err
	}
	results := f.fn.Call(append([]reflect.Value{reflect.ValueOf(first)}, arguments...))
	err, _ = results[len(results)-1].Interface().(error)
	if err != nil || len(results) == 1 {
		return nil, err
	}
	return results[0].Interface(), nil
}

func (f *Function) named() bool { return len(f.params) == 1 && f.params[0].Kind() == reflect.Struct }

func (f *Function) bind(caller Caller, given []Argument) ([]reflect.Value, error) {
	if len(f.params) == 0 {
		// a task that reads no argument is bound by name, with no parameters
		for _, argument := range given {
			if !argument.FromDefault {
				caller.Warn("the task takes no argument of this name", "argument", argument.Name)
			}
		}
		return nil, nil
	}
	if f.named() {
		value, err := bindStruct(caller, f.params[0], given)
		return []reflect.Value{value}, err
	}
	if given == nil {
		return nil, notGiven(len(f.params), caller.OlderSchema)
	}
	fitting := given
	if len(fitting) != len(f.params) {
		fitting = passed(given)
	}
	if len(fitting) != len(f.params) {
		return nil, fmt.Errorf("the task takes %d argument(s) and was given %d (%s)", len(f.params), len(given), names(given))
	}
	values := make([]reflect.Value, len(fitting))
	for place, argument := range fitting {
		pointer := reflect.New(f.params[place])
		if err := decode(caller, argument, pointer); err != nil {
			return nil, err
		}
		values[place] = pointer.Elem()
	}
	return values, nil
}

func notGiven(count int, olderSchema bool) error {
	why := "the Dag calls it without, or maps it, and Airflow sends a mapped stub no arguments"
	if olderSchema {
		why = "the supervisor speaks schema 2026-06-16, which has no arguments"
	}
	return fmt.Errorf("the task takes %d argument(s) and was given none: %s", count, why)
}

// passed returns the arguments that the author of the Dag has passed, without those of Python's defaults.
func passed(given []Argument) []Argument {
	var kept []Argument
	for _, argument := range given {
		if !argument.FromDefault {
			kept = append(kept, argument)
		}
	}
	return kept
}

func bindStruct(caller Caller, kind reflect.Type, given []Argument) (reflect.Value, error) {
	structure := reflect.New(kind).Elem()
	all := fields(kind)
	if given == nil && len(all) > 0 {
		// zero values would pass for what the Dag has passed
		return structure, notGiven(len(all), caller.OlderSchema)
	}
	taken := map[int]bool{}
	var unfilled []string
	for _, field := range all {
		index := match(field.name, given)
		if index < 0 {
			index = match(field.own, given)
		}
		if index < 0 {
			unfilled = append(unfilled, field.name)
			continue
		}
		taken[index] = true
		if err := decode(caller, given[index], structure.FieldByIndex(field.index).Addr()); err != nil {
			return structure, err
		}
	}
	if explicit := passed(given); len(taken) == 0 && len(explicit) == 1 && !tagged(kind) {
		// the one argument is the whole value
		pointer := reflect.New(kind)
		err := decode(caller, explicit[0], pointer)
		return pointer.Elem(), err
	}
	for _, name := range unfilled {
		caller.Warn("the task's argument was not given; it keeps its zero value", "argument", name)
	}
	for index, argument := range given {
		if !taken[index] && !argument.FromDefault {
			caller.Warn("the task takes no argument of this name", "argument", argument.Name)
		}
	}
	return structure, nil
}

type field struct {
	// name is that of its arg tag, else of its json tag, else its own.
	name  string
	own   string
	index []int
}

// fields returns the fields that can be bound; those of embedded structs count as the struct's own.
func fields(kind reflect.Type) []field {
	var found []field
	for _, one := range reflect.VisibleFields(kind) {
		if !one.IsExported() || one.Anonymous || throughPointer(kind, one.Index) {
			continue
		}
		name := one.Name
		own := name
		if tag := one.Tag.Get("arg"); tag != "" {
			name, own = tag, tag
		} else if tag, _, _ := strings.Cut(one.Tag.Get("json"), ","); tag != "" && tag != "-" {
			name = tag
		}
		found = append(found, field{name, own, one.Index})
	}
	return found
}

func throughPointer(kind reflect.Type, index []int) bool {
	for _, step := range index[:len(index)-1] {
		if kind = kind.Field(step).Type; kind.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

func tagged(kind reflect.Type) bool {
	if kind.Kind() != reflect.Struct {
		return false
	}
	for _, one := range reflect.VisibleFields(kind) {
		if one.Tag.Get("arg") != "" {
			return true
		}
	}
	return false
}

// match returns the place of the argument of this name: as it is spelled, else ignoring case and underscores.
func match(name string, given []Argument) int {
	for index, argument := range given {
		if argument.Name == name {
			return index
		}
	}
	for index, argument := range given {
		if fold(argument.Name) == fold(name) {
			return index
		}
	}
	return -1
}

func decode(caller Caller, argument Argument, pointer reflect.Value) error {
	value := argument.Value
	if argument.Kind == "xcom" {
		found, err := caller.Pull(argument.TaskID)
		if err != nil {
			return fmt.Errorf("argument %q: %w", argument.Name, err)
		}
		value = found
	}
	if value == nil && !nullable(pointer.Type().Elem()) {
		return fmt.Errorf("argument %q has no value, and %s has no null%s", argument.Name, pointer.Type().Elem(), origin(argument))
	}
	if err := wire.Into(value, pointer.Interface()); err != nil {
		return fmt.Errorf("argument %q does not fit %s: %w", argument.Name, pointer.Type().Elem(), err)
	}
	return nil
}

// nullable tells whether a type has a value that stands for none; others would silently be zero.
func nullable(kind reflect.Type) bool {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return true
	case reflect.Struct:
		// such as sql.NullInt64: it decides itself
		return reflect.PointerTo(kind).Implements(reflect.TypeFor[json.Unmarshaler]())
	}
	return false
}

func origin(argument Argument) string {
	if argument.Kind == "xcom" {
		return fmt.Sprintf(": task %q has left none, or null", argument.TaskID)
	}
	return ""
}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

func names(given []Argument) string {
	all := make([]string, len(given))
	for index, argument := range given {
		all[index] = argument.Name
	}
	return strings.Join(all, ", ")
}
