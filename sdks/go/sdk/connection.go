package sdk

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Connection is how to reach another system. Printing or logging it shows neither password nor extra.
type Connection struct {
	ID       string
	Type     string
	Host     string
	Schema   string
	Login    string
	Password string
	Port     int
	// Extra is the connection's extra as text, usually JSON.
	Extra string
}

// UnmarshalExtra decodes the extra, which must be JSON, into pointer.
func (c Connection) UnmarshalExtra(pointer any) error {
	if c.Extra == "" {
		return nil
	}
	return json.Unmarshal([]byte(c.Extra), pointer)
}

func (c Connection) String() string {
	return fmt.Sprintf("Connection{%s %s %s:%d/%s}", c.ID, c.Type, c.Host, c.Port, c.Schema)
}

// GoString keeps secrets out of %#v.
func (c Connection) GoString() string { return c.String() }

// Format keeps secrets out of every verb.
func (c Connection) Format(state fmt.State, _ rune) { fmt.Fprint(state, c.String()) }

// LogValue keeps secrets out of structured logs.
func (c Connection) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("conn_id", c.ID),
		slog.String("conn_type", c.Type),
		slog.String("host", c.Host),
		slog.Int("port", c.Port),
	)
}

// MarshalJSON keeps secrets out of JSON: a connection is not to be sent anywhere.
func (c Connection) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }
