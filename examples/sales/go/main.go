// The second task of the sales pipeline: sums orders up by customer.
package main

import (
	"log"
	"math"

	"polypod.dev/sdk/go/airflow"
)

func main() {
	bundle := airflow.Bundle()
	bundle.Register(airflow.TaskHandler("sales", "summarize", summarize))
	if err := bundle.Serve(); err != nil {
		log.Fatal(err)
	}
}

type order struct {
	Customer string  `json:"customer"`
	Amount   float64 `json:"amount"`
}

// summarize gets the orders as its argument: the XCom that the task "extract" left.
func summarize(actx airflow.Context, orders []order) (map[string]float64, error) {
	totals := map[string]float64{}
	for _, order := range orders {
		totals[order.Customer] = math.Round((totals[order.Customer]+order.Amount)*100) / 100
	}
	actx.Logger().Info("summed up", "orders", len(orders), "customers", len(totals))
	return totals, nil
}
