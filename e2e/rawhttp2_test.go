package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchangeHTTP2 sends one request over HTTP/2 whose fields no client would send, and
// returns the status of the answer. A stream or a connection that is closed is an
// answer too, and has none.
func exchangeHTTP2(c net.Conn, fields []hpack.HeaderField, body string) ([]int, error) {
	if _, err := io.WriteString(c, xhttp2.ClientPreface); err != nil {
		return nil, err
	}
	framer := xhttp2.NewFramer(c, c)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range fields {
		if err := encoder.WriteField(field); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(
		framer.WriteSettings(),
		framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""}),
	); err != nil {
		return nil, err
	}
	if body != "" {
		if err := framer.WriteData(1, true, []byte(body)); err != nil {
			return nil, err
		}
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return nil, fmt.Errorf("no answer, and the connection stays open: %w", err)
			}
			return nil, nil
		}
		switch frame := frame.(type) {
		case *xhttp2.MetaHeadersFrame:
			status, err := strconv.Atoi(frame.PseudoValue("status"))
			return []int{status}, err
		case *xhttp2.RSTStreamFrame, *xhttp2.GoAwayFrame:
			return nil, nil
		}
	}
}
