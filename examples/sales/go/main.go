// The second task of the sales pipeline: sums orders up by customer.
package main

import (
	"log"
	"log/slog"
	"math"

	v1 "polypod.dev/sdk/go/bundle/bundlev1"
	"polypod.dev/sdk/go/bundle/bundlev1/bundlev1server"
)

type bundle struct{}

func (bundle) GetBundleVersion() v1.BundleInfo { return v1.BundleInfo{Name: "sales"} }

func (bundle) RegisterDags(registry v1.Registry) error {
	registry.AddDag("sales").AddTask(summarize)
	return nil
}

func main() {
	if err := bundlev1server.Serve(bundle{}); err != nil {
		log.Fatal(err)
	}
}

type order struct {
	Customer string  `json:"customer"`
	Amount   float64 `json:"amount"`
}

// summarize gets the orders as its argument: the XCom that the task "extract" left.
func summarize(orders []order, logger *slog.Logger) (map[string]float64, error) {
	totals := map[string]float64{}
	for _, order := range orders {
		totals[order.Customer] = math.Round((totals[order.Customer]+order.Amount)*100) / 100
	}
	logger.Info("summed up", "orders", len(orders), "customers", len(totals))
	return totals, nil
}
