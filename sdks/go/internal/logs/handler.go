// Package logs sends slog records to the supervisor's logs socket, one JSON object a line.
package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Sink keeps records until the socket is there, then writes them through.
type Sink struct {
	mutex  sync.Mutex
	out    io.Writer
	buffer bytes.Buffer
}

// Connect flushes what was logged so far, in order, and sends everything after that to out.
func (s *Sink) Connect(out io.Writer) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, err := out.Write(s.buffer.Bytes()); err != nil {
		return err
	}
	s.buffer.Reset()
	s.out = out
	return nil
}

// Abandon prints what was never sent to standard error: the runtime could not connect.
func (s *Sink) Abandon() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.out == nil {
		os.Stderr.Write(s.buffer.Bytes())
		s.buffer.Reset()
		s.out = os.Stderr
	}
}

func (s *Sink) write(line []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.out == nil {
		s.buffer.Write(line)
		return
	}
	if _, err := s.out.Write(line); err != nil {
		os.Stderr.Write(line)
	}
}

// Levels says which records are wanted: a global level, and one for each namespace.
type Levels struct {
	global     slog.Level
	namespaces map[string]slog.Level
}

const everything = slog.Level(-1000)

// LevelsFromEnvironment reads the two variables that the supervisor sets.
func LevelsFromEnvironment() Levels {
	levels := Levels{slog.LevelInfo, map[string]slog.Level{}}
	if level, ok := parseLevel(os.Getenv("AIRFLOW__LOGGING__LOGGING_LEVEL")); ok {
		levels.global = level
	}
	split := func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }
	for _, entry := range strings.FieldsFunc(os.Getenv("AIRFLOW__LOGGING__NAMESPACE_LEVELS"), split) {
		name, text, found := strings.Cut(entry, "=")
		if level, ok := parseLevel(text); found && ok && name != "" {
			levels.namespaces[name] = level
		}
	}
	return levels
}

func parseLevel(text string) (slog.Level, bool) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "critical", "fatal":
		return slog.LevelError + 4, true
	case "error":
		return slog.LevelError, true
	case "warning", "warn":
		return slog.LevelWarn, true
	case "info":
		return slog.LevelInfo, true
	case "debug":
		return slog.LevelDebug, true
	case "notset":
		return everything, true
	}
	return 0, false
}

// For returns the level of a logger: that of the longest dotted prefix of its name, else the global one.
func (l Levels) For(name string) slog.Level {
	for prefix := name; prefix != ""; {
		if level, ok := l.namespaces[prefix]; ok {
			return level
		}
		dot := strings.LastIndexByte(prefix, '.')
		if dot < 0 {
			break
		}
		prefix = prefix[:dot]
	}
	return l.global
}

// Handler is the slog handler of one logger. An attribute "logger" renames it and what derives from it.
type Handler struct {
	sink   *Sink
	levels Levels
	name   string
	level  slog.Level
	prefix string
	attrs  []field
}

type field struct {
	key   string
	value any
}

// NewHandler returns the handler of the logger called name.
func NewHandler(sink *Sink, levels Levels, name string) *Handler {
	return &Handler{sink: sink, levels: levels, name: name, level: levels.For(name)}
}

func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	copied := *h
	copied.attrs = append([]field{}, h.attrs...)
	for _, attr := range attrs {
		if h.prefix == "" && attr.Key == "logger" {
			copied.name = attr.Value.String()
			copied.level = h.levels.For(copied.name)
			continue
		}
		copied.attrs = appendAttr(copied.attrs, h.prefix, attr)
	}
	return &copied
}

func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	copied := *h
	copied.prefix = h.prefix + name + "."
	return &copied
}

func (h *Handler) Handle(_ context.Context, record slog.Record) error {
	fields := []field{
		{"timestamp", record.Time.UTC().Format(time.RFC3339Nano)},
		{"level", levelName(record.Level)},
		{"event", record.Message},
		{"logger", h.name},
	}
	fields = append(fields, h.attrs...)
	record.Attrs(func(attr slog.Attr) bool {
		fields = appendAttr(fields, h.prefix, attr)
		return true
	})
	h.sink.write(encode(fields))
	return nil
}

func levelName(level slog.Level) string {
	switch {
	case level > slog.LevelError:
		return "critical"
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

var reserved = map[string]bool{"timestamp": true, "level": true, "event": true, "logger": true}

func appendAttr(fields []field, prefix string, attr slog.Attr) []field {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		inner := prefix
		if attr.Key != "" {
			inner = prefix + attr.Key + "."
		}
		for _, item := range value.Group() {
			fields = appendAttr(fields, inner, item)
		}
		return fields
	}
	if attr.Equal(slog.Attr{}) {
		return fields
	}
	key := prefix + attr.Key
	if reserved[key] {
		key = "field." + key
	}
	return append(fields, field{key, plain(value)})
}

// plain returns a value as the log shows it. A value whose own method panics, such as a nil pointer in an error, must
// not end the task that logs it.
func plain(value slog.Value) (shown any) {
	defer func() {
		if problem := recover(); problem != nil {
			shown = fmt.Sprintf("!PANIC: %v", problem)
		}
	}()
	switch typed := value.Any().(type) {
	case error:
		return typed.Error()
	case time.Duration:
		return typed.String()
	default:
		return typed
	}
}

func encode(fields []field) []byte {
	var line bytes.Buffer
	line.WriteByte('{')
	seen := make(map[string]bool, len(fields))
	for _, item := range fields {
		if seen[item.key] {
			continue
		}
		seen[item.key] = true
		if line.Len() > 1 {
			line.WriteByte(',')
		}
		key, _ := json.Marshal(item.key)
		line.Write(key)
		line.WriteByte(':')
		line.Write(marshal(item.value))
	}
	line.WriteString("}\n")
	return line.Bytes()
}

func marshal(value any) (encoded []byte) {
	defer func() {
		if problem := recover(); problem != nil {
			encoded, _ = json.Marshal(fmt.Sprintf("!PANIC: %v", problem))
		}
	}()
	encoded, err := json.Marshal(value)
	if err != nil {
		// fmt recovers from what panics by itself
		encoded, _ = json.Marshal(fmt.Sprint(value))
	}
	return encoded
}
