package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// remote is the admin API of a running gateway, as flags name it.
type remote struct {
	address, credentialFile   string
	caFile, certFile, keyFile string
	timeout                   time.Duration
}

// adminVariable names the gateway where no flag does.
const adminVariable = "BEARERGATE_ADMIN"

func (r *remote) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.address, "admin", "", "the `ADDRESS` of the gateway's admin listener: host:port, unix:/path, or https://host:port;\nwithout it $"+adminVariable+", else 127.0.0.1:9190")
	f.StringVar(&r.credentialFile, "credential-file", "", "a `FILE` with the credential of the admin API, if it wants one")
	f.StringVar(&r.caFile, "ca-file", "", "trust the certificates in this `FILE`, and not those of the system")
	f.StringVar(&r.certFile, "cert-file", "", "a `FILE` with a certificate of ours")
	f.StringVar(&r.keyFile, "key-file", "", "a `FILE` with its key")
	cmd.MarkFlagsRequiredTogether("cert-file", "key-file")
	f.DurationVar(&r.timeout, "timeout", 10*time.Second, "how long the answer may take")
	for _, name := range []string{"credential-file", "ca-file", "cert-file", "key-file"} {
		must(cmd.MarkFlagFilename(name))
	}
}

// client returns a client, and what ends it. The error is one of wrong use.
func (r *remote) client(cmd *cobra.Command) (adminv1connect.AdminServiceClient, func(), error) {
	client, base, done, err := r.reach(cmd)
	if err != nil {
		return nil, nil, err
	}
	return callsOver(client, base), done, nil
}

// maxAnswerBytes bounds what a gateway says. A configuration of 1 MiB, the largest that is read, is shown in JSON
// with an origin for each of its values.
const maxAnswerBytes = 64 << 20

// callsOver makes calls by what reach returns.
func callsOver(client *http.Client, base string) adminv1connect.AdminServiceClient {
	return adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(client, base, connecthttp.WithReadMaxBytes(maxAnswerBytes))))
}

// reach returns what speaks HTTP with the gateway, its URL, and what ends that. The
// error is one of wrong use.
func (r *remote) reach(cmd *cobra.Command) (_ *http.Client, base string, done func(), err error) {
	if r.timeout <= 0 {
		return nil, "", nil, errors.New("--timeout: give more than 0, for example 3s")
	}
	address := r.address
	if address == "" {
		address = os.Getenv(adminVariable)
	}
	if address == "" {
		address = "127.0.0.1:9190"
	}
	address, secure := strings.CutPrefix(address, "https://")
	network, where, err := config.ParseAddress(address)
	if err != nil || network == "systemd" {
		return nil, "", nil, errors.New("--admin: is no address; write host:port, unix:/path, or https://host:port")
	}
	transport := &http.Transport{ // no proxy: a gateway is asked by itself
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, where)
		},
		MaxResponseHeaderBytes: 64 << 10,
	}
	base = "http://localhost"
	if network == "tcp" {
		base = "http://" + where
		if strings.HasPrefix(where, ":") {
			base = "http://localhost" + where
		}
	}
	if secure {
		if transport.TLSClientConfig, err = r.tls(); err != nil {
			return nil, "", nil, err
		}
		base = "https" + strings.TrimPrefix(base, "http")
	} else if r.caFile != "" || r.certFile != "" {
		return nil, "", nil, errors.New("--ca-file and --cert-file are for --admin https://host:port")
	}
	authorized := roundTripper(transport.RoundTrip)
	if r.credentialFile != "" {
		credential, err := readSecret(cmd, "credential", r.credentialFile, "credential-file", "")
		if err != nil {
			return nil, "", nil, err
		}
		authorized = func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", "Bearer "+credential)
			return transport.RoundTrip(req)
		}
	}
	client := &http.Client{Transport: authorized, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client, base, transport.CloseIdleConnections, nil
}

func (r *remote) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.caFile != "" {
		pem, err := os.ReadFile(r.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", bareFileError(err))
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("--ca-file: holds no certificate in PEM form")
		}
	}
	if r.certFile != "" {
		pair, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--cert-file and --key-file: %w", bareFileError(err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ask calls a gateway, and ends the command with what came of it.
func (r *remote) ask(cmd *cobra.Command, call func(context.Context, adminv1connect.AdminServiceClient) error) error {
	client, done, err := r.client(cmd)
	if err != nil {
		return &ending{exitWrong, err}
	}
	defer done()
	ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
	defer cancel()
	return endingOf(call(ctx, client))
}

// follow is ask for a call that lasts until the command is ended: with 0, unless the
// gateway ends it. A call that is not alive within the time-out has failed; what is
// said of the gateway then is what was known last.
func (r *remote) follow(cmd *cobra.Command, call func(ctx context.Context, c adminv1connect.AdminServiceClient, alive func()) error) error {
	client, done, err := r.client(cmd)
	if err != nil {
		return &ending{exitWrong, err}
	}
	defer done()
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	silent := time.AfterFunc(r.timeout, func() { cancel(errSilent) })
	defer silent.Stop()
	lives := false
	err = call(ctx, client, func() {
		lives = true
		silent.Reset(max(r.timeout, leastSilence))
	})
	switch refused, ok := errors.AsType[*connect.Error](err); {
	case cmd.Context().Err() != nil:
		return nil
	case lives && ok && (refused.Code() == connect.CodeUnavailable || refused.Code() == connect.CodeUnauthenticated):
		return &ending{exitUnknown, errors.New("it was ended: " + printable(refused.Message()))}
	case context.Cause(ctx) != nil:
		return &ending{exitUnknown, fmt.Errorf("no answer from the gateway: %w", context.Cause(ctx))}
	default:
		return endingOf(err)
	}
}

// leastSilence is how long a call that lasts may say nothing: a gateway says something
// every 5 s.
const leastSilence = 15 * time.Second

var errSilent = errors.New("it says nothing any more")

// endingOf gives the error of a call its exit code, and the next step.
func endingOf(err error) error {
	if _, ok := errors.AsType[*ending](err); ok || err == nil {
		return err
	}
	refused, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return &ending{exitUnknown, fmt.Errorf("no answer from the gateway: %w", err)}
	}
	switch text := printable(refused.Message()); refused.Code() {
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeFailedPrecondition, connect.CodeResourceExhausted:
		return &ending{exitWrong, errors.New(text)}
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return &ending{exitWrong, errors.New("the gateway does not let this in: " + text + "; see --credential-file")}
	case connect.CodeUnimplemented:
		return &ending{exitUnknown, errors.New("there is no admin API at that address; is it the admin listener's, without api.off?")}
	case connect.CodeUnavailable:
		if refused.IsRemote() {
			return &ending{exitUnknown, errors.New("the gateway cannot answer: " + text)}
		}
		fallthrough
	default:
		return &ending{exitUnknown, errors.New("no answer from the gateway: " + text + "; does it run, and is --admin its admin listener?")}
	}
}
