// Package comm is the runtime's end of the comm socket: many requests in flight, each answered by its id.
package comm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"polypod.dev/sdk/go/internal/wire"
)

// TerminalTimeout bounds the sending of the last message: a supervisor that is gone must not hold the runtime.
const TerminalTimeout = 30 * time.Second

// ErrTerminated is why a task's context ends when the supervisor wants the task to. Its calls go on all the same.
var ErrTerminated = errors.New("the task was terminated")

var errClosed = errors.New("the supervisor closed the comm socket")

// Channel is an open comm socket.
type Channel struct {
	conn  net.Conn
	first chan wire.Frame
	// sending is not held while an answer is taken: a supervisor may not read on before its own answer is read.
	sending sync.Mutex
	mutex   sync.Mutex
	nextID  int64
	pending map[int64]chan wire.Frame
	closed  chan struct{}
	err     error
}

// Open starts reading from conn.
func Open(conn net.Conn) *Channel {
	channel := &Channel{
		conn:    conn,
		first:   make(chan wire.Frame, 1),
		nextID:  1,
		pending: map[int64]chan wire.Frame{},
		closed:  make(chan struct{}),
	}
	go channel.read()
	return channel
}

func (c *Channel) read() {
	reader := bufio.NewReaderSize(c.conn, 64<<10)
	started := false
	for {
		frame, err := wire.Read(reader)
		if err != nil {
			c.mutex.Lock()
			c.err = err
			c.mutex.Unlock()
			close(c.closed)
			return
		}
		if !started {
			started = true
			c.first <- frame
			continue
		}
		c.mutex.Lock()
		waiting := c.pending[frame.ID]
		delete(c.pending, frame.ID)
		c.mutex.Unlock()
		if waiting != nil {
			waiting <- frame
		}
	}
}

// First waits for the supervisor's own frame.
func (c *Channel) First(ctx context.Context) (wire.Frame, error) {
	select {
	case frame := <-c.first:
		return frame, nil
	case <-c.closed:
		select {
		case frame := <-c.first:
			return frame, nil
		default:
			return wire.Frame{}, fmt.Errorf("the supervisor closed the comm socket before it sent StartupDetails: %w", c.err)
		}
	case <-ctx.Done():
		return wire.Frame{}, ctx.Err()
	}
}

// Request sends a message and waits for its answer.
func (c *Channel) Request(ctx context.Context, body map[string]any) (wire.Frame, error) {
	answer := make(chan wire.Frame, 1)
	c.mutex.Lock()
	id := c.nextID
	c.nextID++
	c.pending[id] = answer
	c.mutex.Unlock()
	data, err := wire.Request(id, body)
	if err == nil {
		err = c.write(data)
	}
	if err != nil {
		c.forget(id)
		return wire.Frame{}, fmt.Errorf("sending %v: %w", body["type"], err)
	}
	select {
	case frame := <-answer:
		return frame, nil
	case <-c.closed:
		return late(answer)
	case <-ctx.Done():
	}
	if errors.Is(context.Cause(ctx), ErrTerminated) {
		// the supervisor still serves what is asked while the task ends
		select {
		case frame := <-answer:
			return frame, nil
		case <-c.closed:
			return late(answer)
		}
	}
	c.forget(id)
	return wire.Frame{}, ctx.Err()
}

func (c *Channel) write(data []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := c.conn.Write(data)
	return err
}

func (c *Channel) forget(id int64) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.pending, id)
}

// late returns an answer that came right before the socket was closed.
func late(answer chan wire.Frame) (wire.Frame, error) {
	select {
	case frame := <-answer:
		return frame, nil
	default:
		return wire.Frame{}, errClosed
	}
}

// Tell sends what answers a question of the Dag processor's, and waits until it was taken.
func (c *Channel) Tell(ctx context.Context, body map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, TerminalTimeout)
	defer cancel()
	_, err := c.Request(ctx, body)
	if errors.Is(err, errClosed) {
		// it has what it asked for
		return nil
	}
	return err
}

// Finish answers frame 0 with how the task ended. It fails if the supervisor has closed the socket: nothing would arrive.
func (c *Channel) Finish(id int64, body map[string]any) error {
	select {
	case <-c.closed:
		return errClosed
	default:
	}
	valid, _ := wire.Valid(body).(map[string]any)
	data, err := wire.Answer(id, valid)
	if err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(TerminalTimeout)); err != nil {
		return err
	}
	return c.write(data)
}

// Close closes the socket.
func (c *Channel) Close() error { return c.conn.Close() }
