package config_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/listen"
)

func TestFurtherListenersAnswerUnderTheirNames(t *testing.T) {
	e := local(t)
	dir := t.TempDir()
	g := run(t, fmt.Sprintf(`
listeners:
  ext_authz: {address: "127.0.0.1:0"}
  admin: {address: "127.0.0.1:0"}
  more:
    - {name: partners, ext_authz: {address: "unix:%s/partners", socket: {mode: "0600"}}}
    - {name: nginx, auth_request: {address: "127.0.0.1:0"}}
    - {name: scraping, admin: {address: "127.0.0.1:0"}}
`, dir)+asking(e.URL()))
	token := issue(t, e)

	if info, err := os.Lstat(dir + "/partners"); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	conn, err := grpc.NewClient("unix:"+dir+"/partners", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if checked, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), checkRequest("authorization", "Bearer "+token)); err != nil || checked.GetStatus().GetCode() != 0 {
		t.Errorf("partners says %v, %v", checked, err)
	}
	if got := get(t, g.Address("nginx"), "/auth"); got.status != http.StatusUnauthorized {
		t.Errorf("nginx says %+v", got)
	}
	if got := get(t, g.Address("scraping"), "/readyz"); got.status != http.StatusOK {
		t.Errorf("scraping says %+v", got)
	}
	for series, want := range map[string]string{
		`bearergate_decisions_total{enforced="true",listener="partners",policy="default",reason="valid",source="endpoint"}`:     "1",
		`bearergate_decisions_total{enforced="true",listener="nginx",policy="default",reason="missing_token",source="none"}`:    "1",
		`bearergate_decisions_total{enforced="true",listener="ext_authz",policy="default",reason="valid",source="endpoint"}`:    "0",
		`bearergate_decisions_total{enforced="true",listener="scraping",policy="default",reason="missing_token",source="none"}`: "",
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	named := map[string]string{}
	refused := false
	for _, entry := range g.log.entries(t) {
		if entry.Message == "listening" {
			named[entry.Listener] = entry.Address
		}
		refused = refused || entry.Message == "request refused" && entry.Listener == "nginx"
	}
	if len(named) != 5 || named["partners"] != "unix:"+dir+"/partners" || named["nginx"] != g.Address("nginx") || !refused {
		t.Errorf("the log names %v", named)
	}
	if err := g.end(); err != nil {
		t.Error(err)
	}
	for _, address := range named {
		expectClosed(t, address)
	}
}

func TestAGatewayThatCannotHaveItsSocketListensNowhere(t *testing.T) {
	dir := t.TempDir()
	for lines, want := range map[string]string{
		`{group: no-such-group-here}`: "listeners.more[0].auth_request.socket.group: is not known on this machine; write the name or number of a group that is",
		`{user: no-such-user-here}`:   "listeners.more[0].auth_request.socket.user: is not known on this machine; write the name or number of a user that is",
	} {
		g, err := config.NewGateway(t.Context(), parse(t, fmt.Sprintf("listeners: {ext_authz: {address: \"unix:%s/x\"}, more: [{name: a, auth_request: {address: \"unix:%s/a\", socket: %s}}]}\n", dir, dir, lines)+
			asking("https://api.example.com/")), (&journal{}).logger(), "test")
		if g != nil || err == nil || err.Error() != want {
			t.Errorf("got %v, %v", g, err)
		}
		expectClosed(t, "unix:"+dir+"/x")
		expectClosed(t, "unix:"+dir+"/a")
	}
}

// inherited is a socket as systemd passes it.
func inherited(t *testing.T, name, at string) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var twin int
	var dupErr error
	if err := raw.Control(func(fd uintptr) { twin, dupErr = syscall.Dup(int(fd)) }); err != nil || dupErr != nil {
		t.Fatal(err, dupErr)
	}
	return os.NewFile(uintptr(twin), name), l.Addr().String()
}

func TestAGatewayAnswersOnThePassedSocketsAndTellsHowFarItIs(t *testing.T) {
	e := local(t)
	file, address := inherited(t, "gate", "127.0.0.1:0")
	unused, _ := inherited(t, "unused", "127.0.0.1:0")
	var stages []config.Stage
	g := run(t, "listeners: {auth_request: {address: \"systemd:gate\"}}\n"+asking(e.URL()),
		config.Inherited(listen.InheritedFiles(file, unused)), config.Notify(func(s config.Stage) { stages = append(stages, s) }))
	if got := g.Address(config.AuthRequest); got != address {
		t.Errorf("listens at %s, want %s", got, address)
	}
	if got := g.ask(t, issue(t, e)); got.status != http.StatusOK {
		t.Errorf("got %+v", got)
	}
	told := false
	for _, entry := range g.log.entries(t) {
		told = told || entry.Level == "WARN" && entry.Address == "systemd:unused" && strings.HasPrefix(entry.Message, "systemd passes a socket that no listener names")
	}
	if !told {
		t.Errorf("the log says %v", g.log.entries(t))
	}
	if err := g.end(); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(stages) != fmt.Sprint([]config.Stage{config.Ready, config.Stopping}) {
		t.Errorf("told of %v", stages)
	}
	expectClosed(t, address)
}

// TestAPassedSocketDoesNotOpenTheAdminAPIToOthers: where it is bound, no file says.
func TestAPassedSocketDoesNotOpenTheAdminAPIToOthers(t *testing.T) {
	for name, test := range map[string]struct {
		at, api string
		refused bool
	}{
		"at every address":                   {"0.0.0.0:0", "", true},
		"at every address, without the API":  {"0.0.0.0:0", ", api: {off: true}", false},
		"at an address of this machine only": {"127.0.0.1:0", "", false},
	} {
		file, address := inherited(t, "gate", test.at)
		g, err := config.NewGateway(t.Context(), parse(t, "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \"systemd:gate\""+test.api+"}}\n"+asking("https://api.example.com/")),
			(&journal{}).logger(), "test", config.Inherited(listen.InheritedFiles(file)))
		if refused := err != nil && strings.HasPrefix(err.Error(), "listeners.admin.address: \"systemd:gate\" is open to other machines, "); refused != test.refused || (err == nil) == test.refused {
			t.Errorf("%s: %v", name, err)
		}
		if g != nil {
			end, stop := context.WithCancel(t.Context())
			stop()
			if err := g.Run(end); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		expectClosed(t, address)
	}
}

func TestASocketThatSystemdDoesNotPassIsAnError(t *testing.T) {
	_, err := config.NewGateway(t.Context(), parse(t, "listeners: {auth_request: {address: \"systemd:gate\"}}\n"+asking("https://api.example.com/")), (&journal{}).logger(), "test")
	if err == nil || err.Error() != "listeners.auth_request.address: systemd:gate: systemd passes no socket; start the gateway by its socket unit, or write host:port" {
		t.Errorf("got %v", err)
	}
}
