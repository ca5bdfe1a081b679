package comm

import (
	"context"
	"fmt"
	"testing"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

// Of a mapped task, each XCom has an index of its own: one that was left out would overwrite those of the others.
func TestAnXComBelongsToItsMapIndex(t *testing.T) {
	two := 2
	for _, index := range []*int{nil, &two} {
		channel, theirs := peer(t)
		asked := make(chan map[string]any, 2)
		go func() {
			for range 2 {
				frame, err := wire.Read(theirs)
				if err != nil {
					t.Error(err)
					return
				}
				asked <- frame.Body
				send(t, theirs, frame.ID)
			}
		}()
		client := &Client{Channel: channel}
		ti := sdk.TaskInstance{DagID: "d", RunID: "r", TaskID: "t", MapIndex: index}
		if err := client.PushXCom(context.Background(), ti, "k", 5); err != nil {
			t.Fatal(err)
		}
		// there is no value in the answer
		_, _ = client.GetXCom(context.Background(), "d", "r", "t", index, "k", nil)
		want := "<nil>"
		if index != nil {
			want = "2"
		}
		for range 2 {
			body := <-asked
			if got := fmt.Sprint(body["map_index"]); got != want {
				t.Errorf("%v: map_index %s, want %s", body["type"], got, want)
			}
		}
	}
}
