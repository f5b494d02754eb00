package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchangeHTTP2 sends one request over HTTP/2 whose fields no client would send, and
// returns the status of the answer. A stream or a connection that is closed is an
// answer too, and has none. The body comes with the fields, so that an edge that is
// slow to ask finds it there, or late: when they are answered.
func exchangeHTTP2(c net.Conn, fields []hpack.HeaderField, body string, late bool) ([]int, error) {
	var sent bytes.Buffer
	framer := xhttp2.NewFramer(&sent, c)
	sent.WriteString(xhttp2.ClientPreface)
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
	send := func() error {
		_, err := sent.WriteTo(c)
		return err
	}
	sendBody := func() error { return errors.Join(framer.WriteData(1, true, []byte(body)), send()) }
	first := send
	if body != "" && !late {
		first = sendBody
	}
	if err := first(); err != nil {
		return nil, err
	}
	var answers []int
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return nil, fmt.Errorf("no answer, and the connection stays open: %w", err)
			}
			return answers, nil
		}
		switch frame := frame.(type) {
		case *xhttp2.MetaHeadersFrame:
			status, err := strconv.Atoi(frame.PseudoValue("status"))
			answers = append(answers, status)
			if err != nil || !late {
				return answers, err
			}
			_ = sendBody() // the stream or the connection may be closed already
		case *xhttp2.RSTStreamFrame, *xhttp2.GoAwayFrame:
			return answers, nil
		}
	}
}
