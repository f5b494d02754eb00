package extauthz_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
)

// answer is what a client gets in the end, by whichever face.
type answer struct {
	Status int
	Header http.Header
	Body   string
	// Remove are the headers that the edge is to take off an allowed request.
	Remove []string
}

// TestBothFacesAnswerAlike asks both about the same, and wants the same status,
// the same header lines and the same body.
func TestBothFacesAnswerAlike(t *testing.T) {
	type request struct {
		name   string
		values []string // of the Authorization header
		target string
	}
	requests := []request{{name: "no header"}, {name: "in the URL", target: "/x?access_token=abc"}}
	for _, value := range []string{
		"", "Basic dTpw", "Bearer", "Bearer\t" + goodToken, `Bearer "` + goodToken + `"`, "Bearer " + goodToken + " x",
		"Bearer " + goodToken + "\xff", "Bearer a=b", "Bearer " + goodToken + "," + goodToken, "Bearer " + strings.Repeat("x", 9000),
		"Bearer " + goodToken, "bearer   " + goodToken, "Bearer " + cachedToken, "Bearer unknown",
		"Bearer " + downToken, "Bearer " + busyToken, "Bearer " + shedToken, "Bearer " + panicToken,
	} {
		requests = append(
			requests,
			request{fmt.Sprintf("%.40q", value), []string{value}, "/orders"},
			request{fmt.Sprintf("%.40q and in the URL", value), []string{value}, "/orders?access_token=abc"},
			request{fmt.Sprintf("%.40q and another", value), []string{value, "Bearer other"}, "/orders"},
		)
	}
	for _, keep := range []bool{false, true} {
		grpcFace := start(t, listenTCP(t), extauthz.Options{}, func(o *gate.Options) { o.KeepToken = keep })
		l := listenTCP(t)
		httpFace := authrequest.NewServer(newGate(t, newOracle(), func(o *gate.Options) { o.KeepToken = keep }), authrequest.Options{Wait: patience})
		served := make(chan error, 1)
		go func() { served <- httpFace.Serve(l) }()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := httpFace.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		seen := map[int]int{}
		for _, r := range requests {
			overHTTP := askHTTP(t, l.Addr(), r.values, r.target)
			overGRPC := askGRPC(t, grpcFace, r.values, r.target)
			if diff := cmp.Diff(overHTTP, overGRPC); diff != "" {
				t.Errorf("%s: keep is %t (-HTTP +gRPC):\n%s", r.name, keep, diff)
			}
			if wantRemoved := overHTTP.Status == http.StatusOK && !keep; wantRemoved != (len(overHTTP.Remove) == 1) {
				t.Errorf("%s: keep is %t: to be removed: %q", r.name, keep, overHTTP.Remove)
			}
			seen[overHTTP.Status]++
		}
		if seen[200] == 0 || seen[401] == 0 || seen[503] == 0 || len(seen) != 3 {
			t.Errorf("the statuses are %v", seen)
		}
	}
}

// askHTTP asks as nginx does.
func askHTTP(t *testing.T, addr net.Addr, values []string, target string) answer {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var text strings.Builder
	text.WriteString("GET /auth/ HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nX-Original-URI: " + target + "\r\n")
	for _, value := range values {
		text.WriteString("Authorization: " + value + "\r\n")
	}
	if _, err := io.WriteString(conn, text.String()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Remove: resp.Header["X-Envoy-Auth-Headers-To-Remove"]}
	if keeps := resp.Header.Get("X-Bearergate-Token") == "keep"; a.Status == http.StatusOK && keeps == (len(a.Remove) > 0) {
		t.Errorf("says %v of the token, and takes off %q", resp.Header, a.Remove)
	}
	// What belongs to the way, not to the answer.
	for _, name := range []string{"Date", "Content-Length", "Connection", "X-Envoy-Auth-Headers-To-Remove", "X-Bearergate-Token"} {
		delete(a.Header, name)
	}
	return a
}

// askGRPC asks as Envoy does, and makes of the reply what Envoy would.
func askGRPC(t *testing.T, f *face, values []string, target string) answer {
	t.Helper()
	headers := &corev3.HeaderMap{}
	for _, value := range values {
		headers.Headers = append(headers.Headers, raw("authorization", value))
	}
	reply := f.check(t, about(&authv3.AttributeContext_HttpRequest{Path: target, HeaderMap: headers}))
	if letThrough(reply) {
		// Envoy has the reason from the metadata of an allowed request.
		reason := reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
		return answer{
			Status: http.StatusOK, Header: http.Header{"X-Bearergate-Reason": {reason}},
			Remove: reply.GetOkResponse().GetHeadersToRemove(),
		}
	}
	denied := reply.GetDeniedResponse()
	a := answer{Status: int(denied.GetStatus().GetCode()), Header: http.Header{}, Body: denied.GetBody()}
	for _, h := range denied.GetHeaders() {
		a.Header.Add(h.GetHeader().GetKey(), h.GetHeader().GetValue())
	}
	return a
}
