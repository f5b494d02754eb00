package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/deploy"
)

// workers is the setting that gives nginx as many workers as servers have cores,
// and puts them there.
func workers() string {
	cores := measure.ServerCores()
	mask := strings.Repeat("1", cores.Count) + strings.Repeat("0", cores.First)
	return fmt.Sprintf("worker_processes %d; worker_cpu_affinity auto %s;", cores.Count, mask)
}

func nginxAlone(ctx context.Context, st *stage, c *contender) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	config, err := st.setting("nginx/nginx.conf", [2]string{"127.0.0.1:8080", address}, [2]string{"worker_processes 1;", workers()})
	if err != nil {
		return err
	}
	c.open = true
	return c.runNginx(ctx, st, config, address)
}

// nginxAsks is nginx with the recipe that asks about every request.
func nginxAsks(ctx context.Context, st *stage, c *contender) error {
	return c.runRecipe(ctx, st, deploy.Nginx(), deploy.Addresses{}, "")
}

// nginxKeeps is nginx with the recipe that keeps what the gateway allows.
func nginxKeeps(ctx context.Context, st *stage, c *contender) error {
	memory, err := os.MkdirTemp("/dev/shm", "bearergate-peers-")
	if err != nil {
		return err
	}
	c.close = append(c.close, func() { _ = os.RemoveAll(memory) })
	if err := os.Chmod(memory, 0o711); err != nil { //nolint:gosec // nginx's workers run as another user and make a folder of their own
		return err
	}
	return c.runRecipe(ctx, st, deploy.NginxCache(), deploy.Addresses{Memory: filepath.Join(memory, "answers")}, "edge_cache: 60s")
}

// runRecipe runs nginx with a recipe, and a gateway with a policy. What it is compared
// with has no access log and answers itself, so it does too.
func (c *contender) runRecipe(ctx context.Context, st *stage, recipe deploy.Recipe, at deploy.Addresses, policy string) error {
	gateway, err := measure.Gateway{Program: st.gateway, Dir: st.dir, Tokens: st.tokens, Policy: policy}.Start(ctx)
	if err != nil {
		return err
	}
	c.close = append(c.close, gateway.Close)
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	at.Edge, at.Gateway = address, gateway.HTTP
	text, err := recipe.At(at)
	if err != nil {
		return err
	}
	text, err = replaced(recipe.Name, text, [2]string{"worker_processes auto;", workers()},
		[2]string{"access_log /dev/stdout bearergate;", "access_log off;"}, [2]string{"proxy_pass http://api;", "empty_gif;"})
	if err != nil {
		return err
	}
	config, err := st.write("nginx/"+recipe.Name+".conf", text)
	if err != nil {
		return err
	}
	c.beside = gateway
	return c.runNginx(ctx, st, config, address)
}

// nginxLua is nginx that asks verifytoken itself and keeps the answers in a
// dictionary that its workers share.
func nginxLua(ctx context.Context, st *stage, folder string, c *contender) error {
	if err := c.asks(ctx, st); err != nil {
		return err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	config, err := st.setting("nginx/lua.conf", [2]string{"127.0.0.1:8080", address}, [2]string{"worker_processes 1;", workers()},
		[2]string{"/usr/lib/nginx/modules/ndk_http_module.so", folder + "/usr/lib/nginx/modules/ndk_http_module.so"},
		[2]string{"/usr/lib/nginx/modules/ngx_http_lua_module.so", folder + "/usr/lib/nginx/modules/ngx_http_lua_module.so"},
		[2]string{`"/usr/share/lua/5.1/?.lua;;"`, strconv.Quote(folder + "/usr/share/lua/5.1/?.lua;;")},
		[2]string{"http://127.0.0.1/verifytoken", "http://" + c.endpoint.address + "/verifytoken"})
	if err != nil {
		return err
	}
	var libraries []string
	for _, pattern := range []string{"usr/lib/*/*.so*", "lib/*/*.so*"} {
		found, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return err
		}
		for _, file := range found {
			libraries = append(libraries, filepath.Dir(file))
		}
	}
	return c.runNginx(ctx, st, config, address, "LD_LIBRARY_PATH="+strings.Join(slices.Compact(libraries), ":"))
}

// runNginx runs nginx with a configuration, and lets wrk measure it.
func (c *contender) runNginx(ctx context.Context, st *stage, config, address string, environment ...string) error {
	p, out, err := measure.Start(ctx, "env", append(slices.Clone(environment),
		"nginx", "-p", st.dir, "-e", "stderr", "-c", config, "-g", "daemon off; pid "+config+".pid;")...)
	if err != nil {
		return err
	}
	p.HTTP = address
	c.speaksHTTP(st, p, edgeRequests)
	c.take = func(ctx context.Context, duration time.Duration) (measure.Turn, error) {
		return c.takeByWrk(ctx, st, duration)
	}
	if c.version, err = nginxVersion(ctx); err != nil {
		return err
	}
	return c.ready(ctx, st, out)
}

// edgeRequests are what clients send.
func edgeRequests(tokens []string) [][]byte {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = []byte("GET /v1/contacts?limit=10 HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	}
	return requests
}

func nginxVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "nginx", "-v").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("nginx -v: %w\n%s", err, out)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "nginx version: nginx/"), nil
}

// cpu is the processor time of nginx and of the gateway that it asks.
func (c *contender) cpu() (time.Duration, error) {
	used, err := c.server.CPU()
	if c.beside == nil || err != nil {
		return used, err
	}
	more, err := c.beside.CPU()
	return used + more, err
}

var wrkFigures = regexp.MustCompile(`(?m)^\{"requests".*\}$`)

// takeByWrk lets wrk measure a turn, with 64 connections. wrk counts its time in
// whole seconds.
func (c *contender) takeByWrk(ctx context.Context, st *stage, duration time.Duration) (measure.Turn, error) {
	script, err := st.setting("nginx/wrk.lua")
	if err != nil {
		return measure.Turn{}, err
	}
	tokens, err := st.write("nginx/tokens", strings.Join(st.tokens, "\n")+"\n")
	if err != nil {
		return measure.Turn{}, err
	}
	before, err := c.cpu()
	if err != nil {
		return measure.Turn{}, err
	}
	var stdout, stderr bytes.Buffer
	seconds := max(1, int(duration.Round(time.Second)/time.Second))
	cmd := exec.CommandContext(ctx, "wrk", "-t", strconv.Itoa(measure.ServerCores().Others().Count), "-c", "64", "-d", strconv.Itoa(seconds)+"s", //nolint:gosec // our own arguments
		"-s", script, "http://"+c.server.HTTP, "--", tokens)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return measure.Turn{}, fmt.Errorf("wrk: %w\n%s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	after, err := c.cpu()
	if err != nil {
		return measure.Turn{}, err
	}
	var figures struct {
		Requests, Microseconds, Failed int64
		P50, P99, P999                 int64
	}
	if err := json.Unmarshal(wrkFigures.Find(stdout.Bytes()), &figures); err != nil {
		return measure.Turn{}, fmt.Errorf("wrk: %w\n%s", err, stdout.Bytes())
	}
	if figures.Requests == 0 || figures.Failed > 0 {
		return measure.Turn{}, errors.New("wrk: not every request was allowed\n" + stdout.String())
	}
	return measure.Turn{
		Requests: figures.Requests, CPU: (after - before) / time.Duration(figures.Requests),
		PerSecond: float64(figures.Requests) / float64(figures.Microseconds) * 1e6,
		P50:       time.Duration(figures.P50) * time.Microsecond, P99: time.Duration(figures.P99) * time.Microsecond,
		P999: time.Duration(figures.P999) * time.Microsecond,
	}, nil
}
