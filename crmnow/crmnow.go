// Package crmnow is the crm-now OAuth2 endpoint as partners see it: a [Client]
// that fetches tokens from it, and an [Emulator] that stands in for it.
//
// The Client promises to send the client's credentials as RFC 6749 §2.3.1 asks,
// to nobody but the configured URL, to keep a token until shortly before it
// ends, and to say in its errors what a partner should look at. It does not
// verify tokens; package verifier does.
//
// The Emulator promises what the public description of the endpoint promises:
// one URL for both jobs, tokens that end, a strict answer to verifytoken, and a
// refusal for each mistake of the description's own list. Where the description
// is silent the Emulator has made a choice, and the real endpoint may choose
// otherwise: the wording of messages, the status of refusals other than 401, and
// all that is told about a refusal beyond its status. It is stricter than the
// real one may be, never more lenient. It keeps nothing on disk, speaks TLS only
// if its listener does, and belongs on loopback.
//
// The package owes nothing to the gateway, so that it can judge it.
package crmnow

import "time"

// The endpoint and its defaults, as its public description gives them.
const (
	// Path is the one path that serves both jobs.
	Path = "/v1/getOauthToken.php"
	// DefaultURL is the real endpoint.
	DefaultURL = "https://api.i1.crm-now.de" + Path
	// DefaultLifetime is how long a token lives unless the reply says otherwise.
	DefaultLifetime = 300 * time.Second
	// DefaultScope is what a token reply gives as its scope.
	DefaultScope = "realm profile email"
)

// maxBody bounds what is read of any request or reply, in bytes.
const maxBody = 64 << 10
