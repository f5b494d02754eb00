package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// Requests is a load of HTTP/1.1 requests, one at a time on each connection.
type Requests struct {
	// Dial opens one of Conns connections.
	Dial  DialFunc
	Conns int
	// Body appends request n, head and all; there are Cycle different ones.
	Body  Body
	Cycle int
	// Status is the status that is wanted; 0 means 200.
	Status int
}

// Open opens the connections.
func (r *Requests) Open(ctx context.Context) (*Load, error) {
	status := r.Status
	if status == 0 {
		status = 200
	}
	l := newLoad(1, r.Cycle)
	for range r.Conns {
		nc, err := r.Dial(ctx)
		if err != nil {
			closeAll(l.conns)
			return nil, err
		}
		l.conns = append(l.conns, &httpConn{
			nc: nc, body: r.Body, in: bufio.NewReader(nc), want: []byte("HTTP/1.1 " + strconv.Itoa(status) + " "),
			flying: make(chan request, 1),
		})
	}
	return l, nil
}

type httpConn struct {
	nc      net.Conn
	body    Body
	message []byte
	flying  chan request
	in      *bufio.Reader
	want    []byte
}

func (c *httpConn) room() int    { return 1 }
func (c *httpConn) close() error { return c.nc.Close() }

func (c *httpConn) send(batch []request) error {
	if len(batch) == 0 {
		return nil
	}
	c.flying <- batch[0]
	c.message = c.body(c.message[:0], batch[0].n)
	_, err := c.nc.Write(c.message)
	return err
}

var contentLength = []byte("Content-Length: ")

func (c *httpConn) await(answered func(request)) error {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, c.want) {
		return fmt.Errorf("want %s, got %s", c.want, bytes.TrimSpace(line))
	}
	length := 0
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
		if bytes.HasPrefix(line, []byte("Transfer-Encoding:")) {
			return errors.New("an answer in chunks is not understood")
		}
	}
	if _, err := c.in.Discard(length); err != nil {
		return err
	}
	answered(<-c.flying)
	return nil
}
