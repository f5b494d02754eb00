package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// Access says who may call the API of a listener. The zero Access is for a listener
// that only this machine reaches.
type Access struct {
	// Listener is its name, for the log; "" if it has none.
	Listener string
	// Off says that there is no API.
	Off bool
	// Credential returns what a call must have as its Bearer token; nil if it need
	// have none.
	Credential func() ([]byte, error)
	// Profiles says that who may call the API may take profiles, too.
	Profiles bool
	// Host is the name by which the listener is configured, "" if it has none.
	Host string
}

// The bounds of a call.
const (
	// maxCallBytes bounds a request: a token of 64 KiB, as JSON may escape it.
	maxCallBytes = 128 << 10
	// callTimeout is how long a call may take.
	callTimeout = 20 * time.Second
)

// What is said of calls that are not let in.
var (
	errHost       = connect.NewError(connect.CodePermissionDenied, "the Host is neither an address nor localhost; call it by its address, or have the listener want a credential")
	errOrigin     = connect.NewError(connect.CodePermissionDenied, "a page of another origin may not call this")
	errCredential = connect.NewError(connect.CodeUnauthenticated, "the credential of the admin API is missing or wrong")
	errUnknown    = connect.NewError(connect.CodeUnavailable, "the credential of the admin API cannot be read; see api.credential of this listener")
)

// guarded lets calls in that may come in.
//
// Browsers are what it guards against besides strangers: every page that an operator
// has open can send requests to loopback. One of another origin says so (Origin,
// Sec-Fetch-Site); one that has its own name point here (DNS rebinding) has that name
// as the Host; and a form cannot send the content types of these calls.
func (s *Server) guarded(next http.Handler, a Access) http.Handler {
	origins := http.NewCrossOriginProtection()
	errors := connecthttp.NewErrorWriter()
	refused := s.refusals("a call of the admin API was refused")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		refuse := func(err *connect.Error) {
			refused(r, err.Message())
			_ = errors.Write(w, r, err) // a client that went away is told nothing
		}
		switch {
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		case !errors.IsSupported(r):
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		case a.isMisled(r):
			refuse(errHost)
			return
		case origins.Check(r) != nil:
			refuse(errOrigin)
			return
		}
		if err := a.admit(w, r); err != nil {
			refuse(err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxCallBytes)
		ctx := context.WithValue(r.Context(), caller{}, who(r))
		if r.URL.Path == adminv1connect.AdminServiceTailProcedure { // lasts until somebody ends it
			ctx = context.WithValue(ctx, lasting{}, &lastingCall{http.NewResponseController(w), func() *connect.Error {
				err := a.admit(w, r) // the credential may be another one since
				if err != nil {
					refused(r, err.Message())
				}
				return err
			}})
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callTimeout)
			defer cancel()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refusals returns what writes who was not let in, and why. One line a second is
// enough: who is not let in fills no disk.
func (s *Server) refusals(message string) func(r *http.Request, why string) {
	var told atomic.Int64
	return func(r *http.Request, why string) {
		if now := time.Now().Unix(); told.Swap(now) != now {
			s.audit(r.Context(), message, who(r), attr("why", why))
		}
	}
}

// isMisled reports whether a request may come from a page whose owner has its name
// point here (DNS rebinding). By TLS it cannot, and no page knows a credential.
func (a *Access) isMisled(r *http.Request) bool {
	return r.TLS == nil && a.Credential == nil && !isOurs(r.Host, a.Host)
}

// isOurs reports whether a Host cannot be the name of somebody else's page.
func isOurs(host, configured string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") || configured != "" && strings.EqualFold(host, configured) {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// admit says why a request is not let in, if a credential is wanted.
func (a *Access) admit(w http.ResponseWriter, r *http.Request) *connect.Error {
	if a.Credential == nil {
		return nil
	}
	err := checkCredential(a.Credential, r.Header)
	if err == errCredential { // with the other one, no credential would help
		w.Header().Set("WWW-Authenticate", `Bearer realm="bearergate admin"`)
	}
	return err
}

// checkCredential compares digests, so that neither the length nor the time says
// anything of the credential.
func checkCredential(credential func() ([]byte, error), h http.Header) *connect.Error {
	want, err := credential()
	if err != nil {
		return errUnknown
	}
	values := h.Values("Authorization")
	if len(values) != 1 {
		return errCredential
	}
	scheme, got, _ := strings.Cut(values[0], " ")
	a, b := sha256.Sum256(want), sha256.Sum256([]byte(got))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return errCredential
	}
	return nil
}

// caller is the key of who calls, in the context of a call.
type caller struct{}

// who names who calls, for the log: by the certificate, if there is one, and by where
// the call comes from.
func who(r *http.Request) string {
	from := r.RemoteAddr
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		from = "unix:" + local.String()
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return from
	}
	leaf := r.TLS.VerifiedChains[0][0]
	name := leaf.Subject.CommonName
	switch {
	case len(leaf.URIs) > 0:
		name = leaf.URIs[0].String()
	case len(leaf.DNSNames) > 0:
		name = leaf.DNSNames[0]
	case len(leaf.EmailAddresses) > 0:
		name = leaf.EmailAddresses[0]
	}
	return name + " at " + from
}
