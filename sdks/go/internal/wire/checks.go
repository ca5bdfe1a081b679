package wire

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	timeType        = reflect.TypeFor[time.Time]()
	numberType      = reflect.TypeFor[json.Number]()
	marshaler       = reflect.TypeFor[json.Marshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// finer matches a time of which time.Time would cut off digits.
var finer = regexp.MustCompile(`\.\d{9}\d*[1-9]`)

// fits returns an error where encoding/json would take a value for another one: null for a zero, a text for a number, a
// list for one of another length.
func fits(before any, target reflect.Value, where path) error {
	kind := target.Type()
	pointer := reflect.PointerTo(kind)
	if pointer.Implements(unmarshaler) || pointer.Implements(textUnmarshaler) {
		if before == nil && !keepsNull(target) {
			return where.errorf("null does not fit %s", kind)
		}
		if text, ok := before.(string); ok && kind == timeType && finer.MatchString(text) {
			return where.errorf("%s is finer than a nanosecond, which time.Time does not hold", text)
		}
		return nil
	}
	switch kind.Kind() {
	case reflect.Pointer:
		if before != nil && !target.IsNil() {
			return fits(before, target.Elem(), where)
		}
		return nil
	case reflect.Interface:
		return nil
	case reflect.Map, reflect.Slice:
		if before == nil {
			return nil
		}
	}
	if before == nil {
		return where.errorf("null does not fit %s", kind)
	}
	switch typed := before.(type) {
	case json.Number:
		return numberFits(typed, target, where)
	case string:
		if kind == numberType {
			return where.errorf("the text %q does not fit %s", typed, kind)
		}
	case []any:
		return itemsFit(typed, target, where)
	case map[string]any:
		return entriesFit(typed, target, where)
	}
	return nil
}

// numberFits returns an error if a number became another one.
func numberFits(before json.Number, target reflect.Value, where path) error {
	var held any
	switch {
	case target.CanInt():
		held = target.Int()
	case target.CanUint():
		held = target.Uint()
	case target.Kind() == reflect.Float32:
		held = float32(target.Float())
	case target.CanFloat():
		held = target.Float()
	default:
		return nil
	}
	if now, err := json.Marshal(held); err == nil && !same(before.String(), string(now)) {
		return where.errorf("%s would become %s", before, now)
	}
	return nil
}

// located puts before an error of encoding/json where in a value it is: which item does not fit by itself.
func located(value any, kind reflect.Type, err error, where path) error {
	for kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	try := func(item any, kind reflect.Type, where path) error {
		if failed := Exact(item, reflect.New(kind).Interface()); failed != nil {
			return located(item, kind, failed, where)
		}
		return nil
	}
	switch typed := value.(type) {
	case []any:
		for index := range typed {
			if kind.Kind() != reflect.Slice && kind.Kind() != reflect.Array {
				break
			}
			if found := try(typed[index], kind.Elem(), where.item(index)); found != nil {
				return found
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(typed)) {
			inner := kind
			switch kind.Kind() {
			case reflect.Map:
				inner = kind.Elem()
			case reflect.Struct:
				field, known := fieldOf(kind, name)
				if !known {
					continue
				}
				if _, text := typed[name].(string); !text && inString(field) {
					return where.key(name).errorf("%w", err)
				}
				inner = field.Type
			default:
				continue
			}
			if found := try(typed[name], inner, where.key(name)); found != nil {
				return found
			}
		}
	}
	return where.errorf("%w", err)
}

// keepsNull tells whether a value that reads itself has taken null for something: the convention is to ignore it.
func keepsNull(target reflect.Value) bool {
	switch target.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return true
	}
	if !target.IsZero() {
		return true
	}
	kind := target.Type()
	writes := kind.Implements(marshaler) || kind.Implements(textMarshaler) ||
		reflect.PointerTo(kind).Implements(marshaler) || reflect.PointerTo(kind).Implements(textMarshaler)
	raw, err := json.Marshal(target.Interface())
	return err == nil && string(raw) == "null" || kind.Kind() == reflect.Struct && !writes
}

func itemsFit(items []any, target reflect.Value, where path) error {
	if target.Kind() == reflect.Array && target.Len() != len(items) {
		return where.errorf("a list of %d does not fit %s", len(items), target.Type())
	}
	if target.Kind() != reflect.Slice && target.Kind() != reflect.Array {
		return nil
	}
	for index := range min(len(items), target.Len()) {
		if err := fits(items[index], target.Index(index), where.item(index)); err != nil {
			return err
		}
	}
	return nil
}

func entriesFit(entries map[string]any, target reflect.Value, where path) error {
	switch target.Kind() {
	case reflect.Map:
		return keysFit(entries, target, where)
	case reflect.Struct:
		return fieldsFit(entries, target, where)
	}
	return nil
}

func keysFit(entries map[string]any, target reflect.Value, where path) error {
	kept := map[string]bool{}
	for _, key := range target.MapKeys() {
		name := keyText(key)
		kept[name] = true
		if item, given := entries[name]; given {
			if err := fits(item, target.MapIndex(key), where.key(name)); err != nil {
				return err
			}
		}
	}
	kind := target.Type().Key()
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		// 01 would be 1; a type that reads keys itself may write them in its own way, unless two become one
		if whole := reflect.Zero(kind).CanInt() || reflect.Zero(kind).CanUint(); !kept[name] && (whole || target.Len() < len(entries)) {
			return where.errorf("the key %q is not as %s writes it", name, kind)
		}
	}
	return nil
}

func fieldsFit(entries map[string]any, target reflect.Value, where path) error {
	if target.NumField() > 0 && len(entries) > 0 && !fillable(target.Type()) {
		return where.errorf("%s has no exported field, so that nothing would arrive", target.Type())
	}
	filled := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		field, found := fieldOf(target.Type(), name)
		if !found {
			continue
		}
		if other := filled[field.Name]; other != "" {
			return where.errorf("the keys %s and %s would both fill the field %s", other, name, field.Name)
		}
		filled[field.Name] = name
		// encoding/json takes it for null
		if entries[name] == "null" && inString(field) {
			return where.key(name).errorf("the text \"null\" does not fit %s", field.Type)
		}
		value, err := target.FieldByIndexErr(field.Index)
		if err != nil {
			continue
		}
		if err := fits(entries[name], value, where.key(name)); err != nil {
			return err
		}
	}
	return nil
}

func fillable(kind reflect.Type) bool {
	return slices.ContainsFunc(fieldsOf(kind), func(field reflect.StructField) bool {
		_, skipped := jsonName(field)
		return field.IsExported() && !skipped
	})
}

// keyText returns a map's key as it is written.
func keyText(key reflect.Value) string {
	if text, ok := key.Interface().(encoding.TextMarshaler); ok && key.Kind() != reflect.String {
		raw, _ := text.MarshalText()
		return string(raw)
	}
	switch {
	case key.Kind() == reflect.String:
		return key.String()
	case key.CanInt():
		return strconv.FormatInt(key.Int(), 10)
	case key.CanUint():
		return strconv.FormatUint(key.Uint(), 10)
	}
	return fmt.Sprint(key.Interface())
}

// fieldOf returns the field that encoding/json fills for a key.
func fieldOf(structure reflect.Type, key string) (reflect.StructField, bool) {
	var found reflect.StructField
	for _, field := range fieldsOf(structure) {
		name, skipped := jsonName(field)
		if skipped || !field.IsExported() || !strings.EqualFold(name, key) {
			continue
		}
		if name == key {
			return field, true
		}
		if found.Name == "" {
			found = field
		}
	}
	return found, found.Name != ""
}

// inString tells whether a field's number or text is within a text, by its tag.
func inString(field reflect.StructField) bool {
	_, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	return slices.Contains(strings.Split(options, ","), "string")
}

var fieldCache sync.Map

// fieldsOf returns a struct's fields, those of embedded ones included.
func fieldsOf(kind reflect.Type) []reflect.StructField {
	if known, ok := fieldCache.Load(kind); ok {
		return known.([]reflect.StructField)
	}
	found := reflect.VisibleFields(kind)
	fieldCache.Store(kind, found)
	return found
}

// jsonName returns the key of a field, and whether it has none.
func jsonName(field reflect.StructField) (string, bool) {
	tag := field.Tag.Get("json")
	name, _, _ := strings.Cut(tag, ",")
	if name != "" {
		return name, tag == "-"
	}
	return field.Name, field.Anonymous
}

// sendable returns an error for what encoding/json would send as something else: a struct of private fields as {}, text
// that is not UTF-8 with other characters.
func sendable(value reflect.Value, where path) error {
	if !value.IsValid() {
		return nil
	}
	kind := value.Type()
	if kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Interface {
		if value.IsNil() {
			return nil
		}
		if !kind.Implements(marshaler) && !kind.Implements(textMarshaler) {
			return sendable(value.Elem(), where)
		}
	}
	if kind.Implements(marshaler) || value.CanAddr() && value.Addr().Type().Implements(marshaler) {
		return nil
	}
	if text, ok := value.Interface().(encoding.TextMarshaler); ok {
		raw, err := text.MarshalText()
		if err == nil && !utf8.Valid(raw) {
			return notText(where)
		}
		return nil
	}
	switch kind.Kind() {
	case reflect.Float32, reflect.Float64:
		if !finite(value) {
			return where.errorf("%v is not a number that JSON can represent", value.Float())
		}
	case reflect.String:
		if !utf8.ValidString(value.String()) {
			return notText(where)
		}
	case reflect.Slice, reflect.Array:
		if simple(kind.Elem()) {
			return nil
		}
		for index := range value.Len() {
			if item := value.Index(index); item.CanFloat() && finite(item) {
				continue
			}
			if err := sendable(value.Index(index), where.item(index)); err != nil {
				return err
			}
		}
	case reflect.Map:
		names := map[string]bool{}
		for _, key := range value.MapKeys() {
			name := keyText(key)
			if names[name] {
				return where.errorf("two keys would be sent as %q", name)
			}
			names[name] = true
			if !utf8.ValidString(name) {
				return notText(where)
			}
			if err := sendable(value.MapIndex(key), where.key(name)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return structSendable(value, where)
	}
	return nil
}

func structSendable(value reflect.Value, where path) error {
	kind := value.Type()
	sent := 0
	for _, field := range fieldsOf(kind) {
		name, skipped := jsonName(field)
		if skipped || !field.IsExported() {
			continue
		}
		sent++
		item, err := value.FieldByIndexErr(field.Index)
		if err != nil || strings.Contains(field.Tag.Get("json"), ",omitempty") && item.IsZero() {
			continue
		}
		if err := sendable(item, where.key(name)); err != nil {
			return err
		}
	}
	if sent > 0 || kind.NumField() == 0 {
		return nil
	}
	if failure, ok := value.Interface().(error); ok || reflect.PointerTo(kind).Implements(reflect.TypeFor[error]()) {
		return where.errorf("an error (%s) has no form in JSON and would be sent as {}; send its text, err.Error()%s", kind, quoted(failure))
	}
	return where.errorf("%s has no exported field and would be sent as {}; export its fields, or give it MarshalJSON", kind)
}

func quoted(failure error) string {
	if failure == nil {
		return ""
	}
	return fmt.Sprintf(": %q", failure.Error())
}

func notText(where path) error {
	return where.errorf("a text is not valid UTF-8; return it as bytes, or encode it")
}

func finite(number reflect.Value) bool {
	return !math.IsNaN(number.Float()) && !math.IsInf(number.Float(), 0)
}

// simple tells whether values of a kind can always be sent.
func simple(kind reflect.Type) bool {
	return kind.Kind() >= reflect.Bool && kind.Kind() <= reflect.Uintptr
}

// unpaired tells whether JSON text has an escaped half of a surrogate pair, which encoding/json reads as U+FFFD.
func unpaired(raw []byte) bool {
	high := false
	for at := 0; at < len(raw); at++ {
		unit := rune(0)
		if raw[at] == '\\' && at+1 < len(raw) {
			at++
			if raw[at] == 'u' && at+4 < len(raw) {
				parsed, _ := strconv.ParseUint(string(raw[at+1:at+5]), 16, 16)
				unit = rune(parsed)
				at += 4
			}
		}
		low := utf16.IsSurrogate(unit) && unit >= 0xdc00
		if low != high {
			return true
		}
		high = utf16.IsSurrogate(unit) && !low
	}
	return high
}
