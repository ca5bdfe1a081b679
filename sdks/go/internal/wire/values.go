package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Plain turns any Go value into what msgpack and Airflow's JSON can both hold, by the rules of encoding/json.
// A number that neither an integer of 64 bits nor a float of 64 bits holds exactly is an error, and so is text that
// is not UTF-8, or a value of which nothing would be sent.
func Plain(value any) (any, error) {
	raw, err := json.Marshal(value)
	if unsupported := (*json.UnsupportedValueError)(nil); errors.As(err, &unsupported) && unsupported.Value.CanFloat() {
		return nil, cmp.Or(sendable(reflect.ValueOf(value), ""), err)
	}
	if err != nil {
		return nil, err
	}
	if err := sendable(reflect.ValueOf(value), ""); err != nil {
		return nil, err
	}
	// what a value writes itself
	if !utf8.Valid(raw) || unpaired(raw) {
		return nil, notText("")
	}
	plain, err := generic(raw)
	if err != nil {
		return nil, err
	}
	return numbers(plain, "")
}

// Exact decodes a value that came over the wire into pointer; numbers without a type of their own stay as they are
// written (json.Number).
func Exact(value any, pointer any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return decoder.Decode(pointer)
}

// Into decodes a value that came over the wire into pointer, by the rules of encoding/json. A number that the target
// cannot hold exactly is an error, and so is null where the target has none; where the target is an interface, such a number is a json.Number in place of a
// float64.
func Into(value any, pointer any) error {
	if err := Exact(value, pointer); err != nil {
		return located(value, reflect.TypeOf(pointer).Elem(), err, "")
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	before, err := generic(raw)
	if err != nil {
		return err
	}
	if err := fits(before, reflect.ValueOf(pointer).Elem(), ""); err != nil {
		return err
	}
	floats(reflect.ValueOf(pointer))
	again, err := json.Marshal(pointer)
	if err != nil {
		// what cannot be encoded was decoded by a method of its own
		return nil
	}
	after, err := generic(again)
	if err != nil {
		return err
	}
	return changed(before, after, "")
}

func generic(raw []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

// numbers replaces each json.Number by the number that it is.
func numbers(value any, where path) (any, error) {
	var err error
	switch typed := value.(type) {
	case json.Number:
		return number(typed, where)
	case map[string]any:
		for key, item := range typed {
			if typed[key], err = numbers(item, where.key(key)); err != nil {
				return nil, err
			}
		}
	case []any:
		for index, item := range typed {
			if typed[index], err = numbers(item, where.item(index)); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

func number(literal json.Number, where path) (any, error) {
	if integer, err := literal.Int64(); err == nil {
		return integer, nil
	}
	if unsigned, err := strconv.ParseUint(literal.String(), 10, 64); err == nil {
		return unsigned, nil
	}
	float, err := literal.Float64()
	if err != nil || !same(literal.String(), strconv.FormatFloat(float, 'g', -1, 64)) {
		return nil, where.errorf("the number %s does not fit into 64 bits without being rounded; return it as text", literal)
	}
	return float, nil
}

// floats turns the json.Numbers within interfaces into float64, as encoding/json has them, where that is exact.
func floats(value reflect.Value) {
	switch value.Kind() {
	case reflect.Pointer:
		if !value.IsNil() {
			floats(value.Elem())
		}
	case reflect.Interface:
		if !value.IsNil() && value.CanSet() {
			value.Set(reflect.ValueOf(float(value.Elem().Interface())))
		}
	case reflect.Slice, reflect.Array:
		if simple(value.Type().Elem()) {
			return
		}
		for index := range value.Len() {
			floats(value.Index(index))
		}
	case reflect.Map:
		if simple(value.Type().Elem()) {
			return
		}
		for _, key := range value.MapKeys() {
			// what is in a map cannot be set
			item := reflect.New(value.Type().Elem()).Elem()
			item.Set(value.MapIndex(key))
			floats(item)
			value.SetMapIndex(key, item)
		}
	case reflect.Struct:
		for index := range value.NumField() {
			if field := value.Type().Field(index); field.IsExported() || field.Anonymous && field.Type.Kind() == reflect.Struct {
				floats(value.Field(index))
			}
		}
	}
}

// Floats turns json.Numbers into float64 where that is exact, in place.
func Floats(values map[string]any) map[string]any {
	float(values)
	return values
}

func float(value any) any {
	switch typed := value.(type) {
	case json.Number:
		if found, err := typed.Float64(); err == nil && same(typed.String(), strconv.FormatFloat(found, 'g', -1, 64)) {
			return found
		}
	case map[string]any:
		for key, item := range typed {
			typed[key] = float(item)
		}
	case []any:
		for index, item := range typed {
			typed[index] = float(item)
		}
	}
	return value
}

// changed returns an error if a number is another one after it was decoded. What was left out or has another form by
// then was the target's own wish.
func changed(before, after any, where path) error {
	switch typed := before.(type) {
	case json.Number:
		if now, ok := after.(json.Number); ok && !same(typed.String(), now.String()) {
			return where.errorf("%s would become %s", typed, now)
		}
	case map[string]any:
		now, _ := after.(map[string]any)
		for key, item := range typed {
			for name, other := range now {
				if strings.EqualFold(key, name) {
					if err := changed(item, other, where.key(key)); err != nil {
						return err
					}
				}
			}
		}
	case []any:
		now, _ := after.([]any)
		for index, item := range typed {
			if index < len(now) {
				if err := changed(item, now[index], where.item(index)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// same tells whether two decimal literals, neither of them out of a float64's range, are the same number.
func same(one, other string) bool {
	if one == other {
		return true
	}
	if _, err := strconv.ParseFloat(one, 64); err != nil {
		return false
	}
	left, ok := new(big.Rat).SetString(one)
	right, alsoOk := new(big.Rat).SetString(other)
	return ok && alsoOk && left.Cmp(right) == 0
}
