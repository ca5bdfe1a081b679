package wire

import "fmt"

// path is a place in a value, such as lines[0].price: the same form as in the Java SDK and the bridge.
type path string

func (p path) item(index int) path { return p + path(fmt.Sprintf("[%d]", index)) }

func (p path) key(name string) path {
	if p == "" {
		return path(name)
	}
	return p + path("."+name)
}

func (p path) errorf(format string, arguments ...any) error {
	err := fmt.Errorf(format, arguments...)
	if p == "" {
		return err
	}
	return fmt.Errorf("%s: %w", string(p), err)
}
