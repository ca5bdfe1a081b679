package binding

import (
	"encoding/json"
	"reflect"
)

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// Declare says how the function takes its arguments, as a TaskHandlerDeclaration without its task_id.
func (f *Function) Declare() map[string]any {
	if len(f.params) == 0 {
		return map[string]any{"binding": "named", "params": []any{}}
	}
	params := []any{}
	if !f.named() {
		for _, kind := range f.params {
			params = append(params, param(nil, kind))
		}
		return map[string]any{"binding": "positional", "params": params}
	}
	for _, one := range fields(f.params[0]) {
		params = append(params, param(one.name, f.params[0].FieldByIndex(one.index).Type))
	}
	return map[string]any{"binding": "named", "params": params}
}

func param(name any, kind reflect.Type) map[string]any {
	made := map[string]any{"name": name, "exact_name": false, "value_schema": nil}
	if schema := jsonType(kind); schema != "" {
		made["value_schema"] = map[string]any{"type": schema}
	}
	return made
}

// jsonType returns the JSON type that fits a Go type, empty where there may be several.
func jsonType(kind reflect.Type) string {
	if kind.Implements(unmarshaler) || reflect.PointerTo(kind).Implements(unmarshaler) {
		return ""
	}
	switch kind.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Array:
		return "array"
	case reflect.Slice:
		if kind.Elem().Kind() == reflect.Uint8 {
			return "string"
		}
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	}
	return ""
}
