package airflow

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"polypod.dev/sdk/go/internal/wire"
)

type panics struct{ inner error }

func (p *panics) Error() string { panic("no text: \xff") }
func (p *panics) Unwrap() error { return p.inner }

func TestAnErrorOfAnyKindIsARetryInValidText(t *testing.T) {
	long := strings.Repeat("é\U0001F600", 400)
	for _, one := range []struct {
		err   error
		words string
	}{
		{errors.New("cannot parse row \"M\xfcnchen\""), "cannot parse row \"M\uFFFDnchen\""},
		{errors.New(long), "é\U0001F600"},
		{errors.New(long[:len(long)-1]), "é"},
		{&panics{errors.New("the database is away")}, "it wraps: the database is away"},
		{fmt.Errorf("outer: %w", errors.New("inner")), "outer: inner"},
		{(*panics)(nil), "panics, whose Error method panicked"},
	} {
		message := end(one.err, nil, true, slog.New(slog.NewTextHandler(io.Discard, nil)))
		reason, _ := message["retry_reason"].(string)
		if message["type"] != "RetryTask" || !utf8.ValidString(reason) || !strings.Contains(reason, one.words) {
			t.Errorf("%T: %v", one.err, message)
		}
		if count := utf8.RuneCountInString(reason); count > 500 {
			t.Errorf("%d characters", count)
		}
	}
}

func TestTheLastMessageIsValidText(t *testing.T) {
	body := map[string]any{"a": []any{map[string]any{"k\xff": "\xe9", "n": int64(1)}}}
	if got := fmt.Sprint(wire.Valid(body)); got != "map[a:[map[k\uFFFD:\uFFFD n:1]]]" {
		t.Fatal(got)
	}
}
