package comm

import (
	"context"
	"errors"
	"net"
	"testing"

	"polypod.dev/sdk/go/internal/wire"
)

// peer returns a channel and the supervisor's end of it, which has sent its first frame.
func peer(t *testing.T) (*Channel, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	channel := Open(ours)
	t.Cleanup(func() { channel.Close(); theirs.Close() })
	send(t, theirs, 0)
	if _, err := channel.First(context.Background()); err != nil {
		t.Fatal(err)
	}
	return channel, theirs
}

func send(t *testing.T, to net.Conn, id int64) {
	t.Helper()
	frame, err := wire.Answer(id, map[string]any{"type": "X"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Write(frame); err != nil {
		t.Error(err)
	}
}

func TestACallGoesOnWhenTheTaskWasToldToEnd(t *testing.T) {
	channel, theirs := peer(t)
	ctx, end := context.WithCancelCause(context.Background())
	end(ErrTerminated)
	go func() {
		frame, err := wire.Read(theirs)
		if err != nil {
			t.Error(err)
			return
		}
		send(t, theirs, frame.ID)
	}()
	if _, err := channel.Request(ctx, map[string]any{"type": "Y"}); err != nil {
		t.Fatal(err)
	}
}

func TestATasksOwnCancellationEndsItsCall(t *testing.T) {
	channel, theirs := peer(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if _, err := wire.Read(theirs); err != nil {
			t.Error(err)
		}
		cancel()
	}()
	if _, err := channel.Request(ctx, map[string]any{"type": "Y"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestAnAnswerRightBeforeTheEndIsNotLost(t *testing.T) {
	for range 500 {
		channel, theirs := peer(t)
		go func() {
			frame, err := wire.Read(theirs)
			if err != nil {
				t.Error(err)
				return
			}
			send(t, theirs, frame.ID)
			theirs.Close()
		}()
		if _, err := channel.Request(context.Background(), map[string]any{"type": "Y"}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnEndThatCannotArriveIsAnError(t *testing.T) {
	channel, theirs := peer(t)
	theirs.Close()
	<-channel.closed
	if err := channel.Finish(0, map[string]any{"type": "SucceedTask"}); !errors.Is(err, errClosed) {
		t.Fatal(err)
	}
}
