package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// clients are loads that others have written.
type clients struct {
	taken
	Clients []comparison `json:"clients"` // without Again
}

// client is a load of others.
type client struct {
	name, about, reference string
	run                    func(context.Context, *measure.Process, time.Duration) (measure.Turn, error)
}

func measureClients(ctx context.Context, b *bench) error {
	c := &clients{taken: take(ctx)}
	gateway, err := b.typicalGateway(nil)
	if err != nil {
		return err
	}
	p, err := gateway(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	// It knows all tokens before others ask, who could not tell 401 from 200.
	warm, err := checks(1, measure.InFlight)
	if err != nil {
		return err
	}
	l, err := warm(ctx, p)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := l.Each(ctx, 0, tokensInUse); err != nil {
		return err
	}
	for _, client := range b.clients() {
		got, err := b.compareBy(ctx, &client, p)
		if err != nil {
			return err
		}
		c.Clients = append(c.Clients, got)
	}
	b.record.Clients = c
	return nil
}

func (b *bench) compareBy(ctx context.Context, client *client, gateway *measure.Process) (comparison, error) {
	c := comparison{Name: client.name, About: client.about}
	noop, err := measure.StartReference(ctx, client.reference)
	if err != nil {
		return c, err
	}
	defer noop.Close()
	const rounds = 3 // theirs last whole seconds
	for round := range rounds {
		b.progress.say("%s, round %d of %d", client.name, round+1, rounds)
		for _, who := range []struct {
			server *measure.Process
			turns  *[]measure.Turn
		}{{noop, &c.Reference}, {gateway, &c.Gateway}} {
			before, err := who.server.CPU()
			if err != nil {
				return c, err
			}
			t, err := client.run(ctx, who.server, b.duration)
			if err != nil {
				return c, err
			}
			after, err := who.server.CPU()
			if err != nil {
				return c, err
			}
			t.CPU = (after - before) / time.Duration(t.Requests)
			*who.turns = append(*who.turns, t)
		}
	}
	return c, nil
}

func (b *bench) clients() []client {
	return []client{
		{"wrk", "auth_request, 64 connections, 1000 tokens", "http", func(ctx context.Context, p *measure.Process, d time.Duration) (measure.Turn, error) {
			return b.wrk(ctx, "http://"+p.HTTP+"/auth", 1, measure.HTTPConnections, d)
		}},
		{"h2load", "ext_authz, 2 connections, 64 in flight, one token", "grpc", b.h2load},
	}
}

// What h2load says of its requests.
var (
	h2loadRate  = regexp.MustCompile(`finished in ([0-9.]+)(ms|s), ([0-9.]+) req/s`)
	h2loadCount = regexp.MustCompile(`requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored`)
)

// h2load sends one and the same check: it has one body for all requests.
func (b *bench) h2load(ctx context.Context, p *measure.Process, duration time.Duration) (measure.Turn, error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return measure.Turn{}, err
	}
	body := requests.Append(make([]byte, 5), 0)
	binary.BigEndian.PutUint32(body[1:], uint32(requests.Bytes())) //nolint:gosec // it is short
	file := filepath.Join(b.dir, "check.grpc")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return measure.Turn{}, err
	}
	cmd := exec.CommandContext(ctx, "h2load", "-t", "1", "-c", fmt.Sprint(measure.Connections), "-m", fmt.Sprint(measure.InFlight/measure.Connections), //nolint:gosec // our own words
		"-D", fmt.Sprintf("%.0f", math.Ceil(duration.Seconds())), "-d", file, "-H", "content-type: application/grpc", "-H", "te: trailers",
		"http://"+p.GRPC+authv3.Authorization_Check_FullMethodName)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return measure.Turn{}, missing("h2load", fmt.Errorf("%w\n%s", err, out))
	}
	return readH2load(string(out))
}

func readH2load(out string) (measure.Turn, error) {
	rate, counts := h2loadRate.FindStringSubmatch(out), h2loadCount.FindStringSubmatch(out)
	if rate == nil || counts == nil {
		return measure.Turn{}, fmt.Errorf("h2load: %s", out)
	}
	perSecond, err := strconv.ParseFloat(rate[3], 64)
	if err != nil {
		return measure.Turn{}, err
	}
	succeeded, err := strconv.ParseInt(counts[2], 10, 64)
	if err != nil {
		return measure.Turn{}, err
	}
	if succeeded == 0 || counts[3] != "0" || counts[4] != "0" {
		return measure.Turn{}, fmt.Errorf("h2load: %s", counts[0])
	}
	return measure.Turn{Requests: succeeded, PerSecond: perSecond}, nil
}

func clientTables(r *record) string {
	if r.Clients == nil {
		return ""
	}
	var rows [][]string
	for i := range r.Clients.Clients {
		c := &r.Clients.Clients[i]
		row := []string{
			c.Name + ": " + c.About, microseconds(measure.Median(c.Gateway, measure.CPU)), c.times(measure.CPU),
			perSecond(measure.Median(c.Gateway, measure.Rate)), c.times(measure.Rate), "–", "–",
		}
		if p99 := measure.Median(c.Gateway, measure.P99); p99 > 0 {
			row[5], row[6] = milliseconds(p99), c.times(measure.P99)
		}
		rows = append(rows, row)
	}
	return r.Clients.String() + "\n\n" +
		page.Table([]string{"client", "CPU per check", "of the no-op's", "checks/s", "of the no-op's", "p99", "of the no-op's"}, rows)
}
