// Command authserver is an authorization server that others have written (zitadel's
// implementation of OpenID Connect), with clients in memory, for the end-to-end tests
// of bearergate. It is a module of its own, so that what it is made of is no part of
// the gateway.
//
// It listens on a free port of loopback and says on standard output who it is: its
// issuer is http:// and its address. There are discovery,
// keys, the token endpoint with client_credentials, introspection and revocation, as
// the library has them, and besides, under /control, what an operator would do by
// other means: POST /control/rotate?algorithm=ES256&keep=1 has it sign with a new key,
// and show the old one still, or not.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	secret := flag.String("secret-file", "", "the secret of all clients")
	key := flag.String("client-key", "", "the public key (PEM) of the client gateway-with-key, for private_key_jwt")
	flag.Parse()
	if err := run(os.Stdout, *secret, *key); err != nil {
		fmt.Fprintln(os.Stderr, "authserver:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, secretFile, keyFile string) error {
	s := &storage{tokens: map[string]*token{}}
	secret, err := os.ReadFile(secretFile)
	if err != nil {
		return err
	}
	s.secret = string(secret)
	if s.clientKey, err = readPublicKey(keyFile); err != nil {
		return err
	}
	if err := s.rotate(jose.RS256, false); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + l.Addr().String()
	config := &op.Config{AuthMethodPost: true, AuthMethodPrivateKeyJWT: true}
	_, _ = rand.Read(config.CryptoKey[:]) // never fails (Go 1.24 and later)
	provider, err := op.NewProvider(config, s, op.StaticIssuer(issuer), op.WithAllowInsecure())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", op.RegisterLegacyServer(op.NewLegacyServer(provider, *op.DefaultEndpoints), op.AuthorizeCallbackHandler(provider)))
	mux.HandleFunc("POST /control/rotate", func(w http.ResponseWriter, r *http.Request) {
		algorithm := jose.SignatureAlgorithm(r.FormValue("algorithm"))
		if err := s.rotate(algorithm, r.FormValue("keep") != ""); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if _, err := fmt.Fprintln(out, issuer); err != nil {
		return err
	}
	return server.Serve(l)
}

func readPublicKey(file string) (any, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", file)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// Clients. The first two fetch tokens, whose form they stand for; the others ask about
// them.
const (
	wantsJWT    = "partner-jwt"
	wantsOpaque = "partner-opaque"
	hasSecret   = "gateway"
	hasKey      = "gateway-with-key"
)

// audience is whom all tokens are meant for.
var audience = []string{"orders", hasSecret, hasKey}

// storage is what the library asks for its state. What is not here it needs for users
// alone, who do not exist.
type storage struct {
	op.Storage

	secret    string
	clientKey any

	mu     sync.Mutex
	keys   []*signingKey // the first one signs
	tokens map[string]*token
}

type token struct {
	client  string
	scopes  []string
	expires time.Time
}

// signingKey is a key of the server, private and as it is shown.
type signingKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   any
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k *signingKey) Key() any                                    { return k.private }

type publicKey struct{ *signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k publicKey) Use() string                        { return "sig" }

func (k publicKey) Key() any {
	switch key := k.private.(type) {
	case *rsa.PrivateKey:
		return &key.PublicKey
	case *ecdsa.PrivateKey:
		return &key.PublicKey
	default:
		return nil
	}
}

// rotate makes a key that signs from now on.
func (s *storage) rotate(algorithm jose.SignatureAlgorithm, keep bool) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := &signingKey{id: "key-" + strconv.Itoa(len(s.keys)) + rand.Text(), algorithm: algorithm}
	switch algorithm {
	case jose.RS256:
		key.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		key.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = fmt.Errorf("%q is not RS256 or ES256", algorithm)
	}
	if err != nil {
		return err
	}
	if !keep {
		s.keys = nil
	}
	s.keys = append([]*signingKey{key}, s.keys...)
	return nil
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0], nil
}

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]op.Key, 0, len(s.keys))
	for _, key := range s.keys {
		keys = append(keys, publicKey{key})
	}
	return keys, nil
}

func (s *storage) Health(context.Context) error { return nil }

var errUnknown = errors.New("unknown client, or a wrong secret")

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if !slices.Contains([]string{wantsJWT, wantsOpaque, hasSecret, hasKey}, id) {
		return nil, errUnknown
	}
	return client(id), nil
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if _, err := s.GetClientByClientID(context.Background(), id); err != nil || id == hasKey || secret != s.secret {
		return errUnknown
	}
	return nil
}

func (s *storage) GetKeyByIDAndClientID(_ context.Context, id, client string) (*jose.JSONWebKey, error) {
	if client != hasKey {
		return nil, errUnknown
	}
	return &jose.JSONWebKey{KeyID: id, Use: "sig", Key: s.clientKey}, nil
}

// ClientCredentials and ClientCredentialsTokenRequest make the grant of that name.
func (s *storage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return client(id), nil
}

//nolint:unparam // the library's signature
func (s *storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return request{id, scopes}, nil
}

func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (id string, expires time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, expires = rand.Text(), time.Now().Add(5*time.Minute)
	s.tokens[id] = &token{client: r.GetSubject(), scopes: r.GetScopes(), expires: expires}
	return id, expires, nil
}

func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, _, _ string, scopes []string) (map[string]any, error) {
	return map[string]any{"scope": oidc.SpaceDelimitedArray(scopes)}, nil
}

// SetIntrospectionFromToken says what is known of a token that is good; an error makes
// it one that is not active.
func (s *storage) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, id, subject, asking string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[id]
	if t == nil || !t.expires.After(time.Now()) || !slices.Contains(audience, asking) {
		return errors.New("not active")
	}
	answer.Subject, answer.ClientID, answer.Scope, answer.Audience = subject, t.client, t.scopes, audience
	answer.Expiration, answer.TokenType = oidc.FromTime(t.expires), oidc.BearerToken
	return nil
}

func (s *storage) GetRefreshTokenInfo(context.Context, string, string) (user, id string, err error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s *storage) RevokeToken(_ context.Context, id, _, client string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[id]; t != nil {
		if t.client != client {
			return oidc.ErrInvalidClient()
		}
		delete(s.tokens, id)
	}
	return nil
}

// request is for a token.
type request struct {
	client string
	scopes []string
}

func (r request) GetSubject() string    { return r.client }
func (r request) GetAudience() []string { return audience }
func (r request) GetScopes() []string   { return r.scopes }

// client is a client, by its name.
type client string

func (c client) GetID() string                      { return string(c) }
func (client) RedirectURIs() []string               { return nil }
func (client) PostLogoutRedirectURIs() []string     { return nil }
func (client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeWeb }
func (client) ResponseTypes() []oidc.ResponseType   { return nil }
func (client) GrantTypes() []oidc.GrantType         { return []oidc.GrantType{oidc.GrantTypeClientCredentials} }
func (client) LoginURL(string) string               { return "" }
func (client) IDTokenLifetime() time.Duration       { return 0 }
func (client) DevMode() bool                        { return false }
func (client) IsScopeAllowed(string) bool           { return true }
func (client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (client) ClockSkew() time.Duration             { return 0 }

//nolint:revive,staticcheck // the library's name
func (client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c client) AuthMethod() oidc.AuthMethod {
	if c == hasKey {
		return oidc.AuthMethodPrivateKeyJWT
	}
	return oidc.AuthMethodBasic
}

func (c client) AccessTokenType() op.AccessTokenType {
	if c == wantsOpaque {
		return op.AccessTokenTypeBearer
	}
	return op.AccessTokenTypeJWT
}
