package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// run is what all tests of one run share.
type run struct {
	command string // the built bearergate
	// authServer is a built authorization server.
	authServer string
	api        *api
	collector  *collector
	tokens     tokenBook
	outputs    outputs
	expected   expectations
	ports      ports
	cases      atomic.Int64
	root       string // holds what every program writes, until the end of the run
	folders    atomic.Int64
}

// nextCase returns a name that no other request has.
func (r *run) nextCase() string { return "case-" + strconv.FormatInt(r.cases.Add(1), 10) }

// folder makes a folder for one program. It lasts until the end of the run, and
// every user may enter it: nginx's workers are another one.
func (r *run) folder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(r.root, strconv.FormatInt(r.folders.Add(1), 10))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// codecKind is one of the two ways in which the gateway reads Envoy's messages. With
// either, all must be the same.
type codecKind struct {
	name  string
	flags []string
}

// own are those of the edges for which it makes a difference: our codec is tried with
// all of them, the other with those that speak gRPC.
func (c codecKind) own(kinds []edgeKind) []edgeKind {
	if c.flags == nil {
		return kinds
	}
	return slices.DeleteFunc(slices.Clone(kinds), func(kind edgeKind) bool {
		return kind.recipe.Name != deploy.Envoy().Name && kind.recipe.Name != deploy.EnvoyCache().Name
	})
}

func codecs() []codecKind {
	return []codecKind{{"our codec", nil}, {"the generated codec", []string{"--generated-codec"}}}
}

// TestMain lets more tests run at once than there are processors: most of them wait
// for a time-out of a proxy or for an answer that is held back.
func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "16"); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// TestBehindRealProxies runs everything that needs a proxy, and then searches all
// that was written by anybody for all tokens that were used.
func TestBehindRealProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("real proxies take too long for -short")
	}
	r := &run{root: t.TempDir()}
	if err := os.Chmod(filepath.Dir(r.root), 0o755); err != nil { // t.TempDir's own is for its user alone
		t.Fatal(err)
	}
	r.command = buildCommand(t, r.folder(t))
	r.authServer = buildAuthServer(t, r.folder(t))
	r.api = newAPI(t)
	r.collector = startCollector(t, r)

	t.Run("requests", func(t *testing.T) {
		t.Run("to a gateway that misbehaves", func(t *testing.T) {
			t.Parallel()
			testMisbehaviour(t, r)
		})
		for _, codec := range codecs() {
			t.Run("on a good day with "+codec.name, func(t *testing.T) {
				t.Parallel()
				s := r.startStack(t, "a good day with "+codec.name, append(edgeKinds(), envoyVariants()...), settings{
					timeout: "3s", flags: codec.flags, policy: "{edge_cache: 10s, identity: [{name: X-Bearergate-Fingerprint, fingerprint: true}]}",
				})
				t.Run("by what they carry", func(t *testing.T) { testCredentials(t, s) })
				t.Run("by method", func(t *testing.T) { testMethods(t, s) })
				t.Run("with large bodies", func(t *testing.T) { testBodies(t, s) })
				t.Run("answered by the API with errors", func(t *testing.T) { testAPIAnswers(t, s) })
				t.Run("with claims that are not the client's to make", func(t *testing.T) { testClaims(t, s) })
				t.Run("with odd paths", func(t *testing.T) { testPaths(t, s) })
				t.Run("many with one token", func(t *testing.T) { testOneTokenManyRequests(t, s) })
				t.Run("many at once with one new token", func(t *testing.T) { testOneTokenAtOnce(t, s) })
			})
			t.Run("on a bad night with "+codec.name, func(t *testing.T) {
				t.Parallel()
				// The gateway is to come back where it was, so it does not pick its ports itself.
				testTrouble(t, r.startStack(t, "a bad night with "+codec.name, edgeKinds(), settings{
					timeout: "500ms", admin: r.ports.free(t), flags: codec.flags,
					gates: gates{extAuthz: r.ports.free(t), authRequest: r.ports.free(t)},
				}))
			})
		}
		for _, codec := range codecs() {
			for name, test := range map[string]func(*testing.T, *run, codecKind){
				"that the edge answers itself":               testKeeping,
				"over TLS":                                   testTLS,
				"under several policies":                     testPolicies,
				"over unix sockets":                          testSockets,
				"with tokens of a real authorization server": testAuthServer,
			} {
				t.Run(name+" with "+codec.name, func(t *testing.T) {
					t.Parallel()
					test(t, r, codec)
				})
			}
		}
		t.Run("refused in other words", func(t *testing.T) {
			t.Parallel()
			testRefusals(t, r)
		})
		t.Run("of which the API is told claims", func(t *testing.T) {
			t.Parallel()
			testClaimHeaders(t, r)
		})
		t.Run("whose token the API sees", func(t *testing.T) {
			t.Parallel()
			testForwardToken(t, r)
		})
		t.Run("about which PHP is asked", func(t *testing.T) {
			t.Parallel()
			testPHP(t, r)
		})
		t.Run("about which Caddy asks anew", func(t *testing.T) {
			t.Parallel()
			testQuestions(t, r)
		})
		t.Run("that attack", func(t *testing.T) {
			t.Parallel()
			testAttacks(t, r)
		})
		t.Run("while the gateway reads its configuration again", func(t *testing.T) {
			t.Parallel()
			testReload(t, r)
		})
		t.Run("whose tokens partners name without showing them", func(t *testing.T) {
			t.Parallel()
			testFingerprints(t, r)
		})
		t.Run("while the gateway dies", func(t *testing.T) {
			t.Parallel()
			testDeath(t, r)
		})
		t.Run("of clients that the edges name", func(t *testing.T) {
			t.Parallel()
			testTalkers(t, r)
		})
		t.Run("for which somebody is woken", func(t *testing.T) {
			t.Parallel()
			testRunbooks(t, r)
		})
		t.Run("while two gateways are restarted", func(t *testing.T) {
			t.Parallel()
			testRolling(t, r)
		})
	})

	t.Run("the logs of the edges explain every request", func(t *testing.T) { testEdgeLogs(t, r) })
	t.Run("no token is in any output", func(t *testing.T) {
		r.outputs.addText("headers and paths that reached the API", r.api.headers())
		r.outputs.search(t, r.tokens.all())
		if chosen := flag.Lookup("test.run").Value.String(); chosen == "" || chosen == "." {
			r.collector.got(t) // all tests have run
		}
	})
}
