// Package wire reads and writes the frames of the comm socket: a 4-byte big-endian length, then a msgpack array.
package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxFrame is the largest frame accepted, in bytes.
const MaxFrame = 1 << 30

// Frame is one frame from the supervisor: an answer, or frame 0.
type Frame struct {
	ID    int64
	Body  map[string]any
	Error map[string]any
}

// Read reads one frame. It returns io.EOF only between frames.
func Read(r io.Reader) (Frame, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > MaxFrame {
		return Frame{}, fmt.Errorf("a frame of %d bytes is over the limit of %d", size, MaxFrame)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return Frame{}, fmt.Errorf("the comm socket ended within a frame: %w", err)
	}
	return decode(payload)
}

func decode(payload []byte) (Frame, error) {
	decoder := msgpack.NewDecoder(bytes.NewReader(payload))
	decoder.UseLooseInterfaceDecoding(true)
	var parts []any
	if err := decoder.Decode(&parts); err != nil {
		return Frame{}, fmt.Errorf("a frame is not a msgpack array: %w", err)
	}
	if len(parts) < 2 {
		return Frame{}, fmt.Errorf("a frame has %d elements; it needs 2 or 3", len(parts))
	}
	id, ok := parts[0].(int64)
	if !ok {
		if unsigned, isUnsigned := parts[0].(uint64); isUnsigned {
			id, ok = int64(unsigned), true
		}
	}
	if !ok {
		return Frame{}, fmt.Errorf("a frame's id is %T, not an integer", parts[0])
	}
	frame := Frame{ID: id}
	frame.Body, _ = parts[1].(map[string]any)
	if len(parts) > 2 {
		frame.Error, _ = parts[2].(map[string]any)
	}
	return frame, nil
}

// Request encodes a request: [id, body].
func Request(id int64, body map[string]any) ([]byte, error) { return encode([]any{id, body}) }

// Answer encodes the answer to the supervisor's own frame: [id, body, nil].
func Answer(id int64, body map[string]any) ([]byte, error) { return encode([]any{id, body, nil}) }

func encode(parts []any) ([]byte, error) {
	var buffer bytes.Buffer
	buffer.Write([]byte{0, 0, 0, 0})
	encoder := msgpack.NewEncoder(&buffer)
	encoder.UseCompactInts(true)
	if err := encoder.Encode(parts); err != nil {
		return nil, err
	}
	size := buffer.Len() - 4
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("a frame of %d bytes does not fit (4 GiB)", size)
	}
	data := buffer.Bytes()
	binary.BigEndian.PutUint32(data, uint32(size))
	return data, nil
}

// Valid returns a message with U+FFFD for what is not UTF-8 in its texts: the last message of a task must be readable.
func Valid(value any) any {
	switch found := value.(type) {
	case string:
		return strings.ToValidUTF8(found, "\uFFFD")
	case []any:
		items := make([]any, len(found))
		for index, item := range found {
			items[index] = Valid(item)
		}
		return items
	case map[string]any:
		items := make(map[string]any, len(found))
		for key, item := range found {
			items[strings.ToValidUTF8(key, "\uFFFD")] = Valid(item)
		}
		return items
	}
	return value
}
