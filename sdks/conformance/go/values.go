package main

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"time"

	"polypod.dev/sdk/go/airflow"
)

// echo returns its argument, whatever it is.
func echo(_ airflow.Context, value any) (any, error) { return value, nil }

// whole takes what has no null.
func whole(_ airflow.Context, value int64) (any, error) { return value, nil }

// typed takes what Go's own types can hold of a value.
func typed(_ airflow.Context, value struct {
	Integer int64
	Float   float64
	Small   float32
	Text    string
}) (any, error) {
	return value, nil
}

type brokenError struct{ text *string }

func (e *brokenError) Error() string { return *e.text }

// special returns a value that only Go has, by the name in the run's params.
func special(ctx airflow.Context) (any, error) {
	name, _ := ctx.DagRun().Conf["special"].(string)
	var none *brokenError
	ctx.Logger().Info("a typed nil error is no reason to end", "error", error(none))
	when := time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	large, _ := new(big.Int).SetString("1180591620717411303425", 10)
	value, ok := map[string]any{
		"big": large, "fits": big.NewInt(1 << 60), "unsigned": uint64(math.MaxUint64), "nan": math.NaN(),
		"decimal": json.Number("12345678901234567.89"), "price": json.Number("100.00"), "time": when,
		"text": "cut \xed\xa0\xbd", "nested": map[string]any{"a": []any{math.Inf(1)}}, "keys": map[int]string{1: "a"},
		"smallest": int64(math.MinInt64), "float": 0.1,
	}[name]
	if !ok {
		return nil, errors.New("there is no special value " + name)
	}
	return value, nil
}
