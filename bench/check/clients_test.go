package main

import (
	"strings"
	"testing"
)

func TestReadH2load(t *testing.T) {
	const said = "finished in 2.00s, 55123.50 req/s, 5.68MB/s\n" +
		"requests: 110247 total, 110311 started, 110247 done, 110247 succeeded, 0 failed, 0 errored, 0 timeout\n" +
		"status codes: 110247 2xx, 0 3xx, 0 4xx, 0 5xx\n"
	tests := []struct{ name, said, err string }{
		{"all went well", said, ""},
		{"some failed", strings.Replace(said, "0 failed", "7 failed", 1), "7 failed"},
		{"some were errors", strings.Replace(said, "0 errored", "7 errored", 1), "7 errored"},
		{"it says nothing that is known", "usage: h2load", "usage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readH2load(tt.said)
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if err == nil && (got.Requests != 110247 || got.PerSecond != 55123.5) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
