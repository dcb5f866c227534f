package nft

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/netlink"
)

// Events is a subscription to what happens to nft tables.
type Events struct{ conn *netlink.Conn }

// Event says that something in a table has changed.
type Event struct {
	Table   string
	Deleted bool // the table itself
}

// Subscribe listens in the current thread's network namespace.
func Subscribe() (*Events, error) {
	conn, err := netlink.Dial(protocolNetfilter, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	if err := conn.JoinGroup(eventGroup); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to nft events: %w", err), conn.Close())
	}
	return &Events{conn}, nil
}

// Close ends the subscription; a blocked Next returns os.ErrClosed.
func (e *Events) Close() error { return e.conn.Close() }

// Next waits for the next events. When the kernel could not keep them all it returns one without table.
func (e *Events) Next() ([]Event, error) {
	messages, err := e.conn.Receive()
	if errors.Is(err, syscall.ENOBUFS) {
		return []Event{{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receive nft events: %w", closed(err))
	}
	var events []Event
	for _, m := range messages {
		kind := uint16(m.Header.Type) & 0xff
		if uint16(m.Header.Type)>>8 != subsystem || kind == msgNewGen || len(m.Data) < headerLen {
			continue
		}
		attrs, err := parse(m.Data[headerLen:])
		if err != nil {
			return nil, err
		}
		events = append(events, Event{attrs.text(attrTable), kind == msgDelTable})
	}
	return events, nil
}

// closed is os.ErrClosed where the system says it in other words.
func closed(err error) error {
	if errors.Is(err, syscall.EBADF) || errors.Is(err, os.ErrClosed) {
		return os.ErrClosed
	}
	return err
}
