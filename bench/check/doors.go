package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// doors are the ways to the gateway.
type doors struct {
	taken
	Doors []comparison `json:"doors"`
}

func measureDoors(ctx context.Context, b *bench) error {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return err
	}
	secure, err := measure.NewCertificate(b.dir)
	if err != nil {
		return err
	}
	plain := func(p *measure.Process) load.DialFunc { return measure.Dial(p.GRPC) }
	d := &doors{taken: take(ctx)}
	for _, door := range []struct {
		name, noop, listener string
		dial                 func(*measure.Process) load.DialFunc
	}{
		{"TCP", "grpc", "", plain},
		{"unix socket", "grpc@" + b.socket("noop"), fmt.Sprintf("{address: %q}", b.socket("gateway")), plain},
		{
			"TCP with TLS 1.3", "grpc@tls:" + b.dir,
			fmt.Sprintf(`{address: "127.0.0.1:0", tls: {cert_file: %q, key_file: %q}}`, filepath.Join(b.dir, measure.CertificateFile), filepath.Join(b.dir, measure.KeyFile)),
			func(p *measure.Process) load.DialFunc { return load.Dial("tcp", p.GRPC, secure) },
		},
	} {
		gateway, err := b.typicalGateway(func(g *measure.Gateway) { g.ExtAuthz = door.listener })
		if err != nil {
			return err
		}
		newLoad := func(ctx context.Context, p *measure.Process) (*load.Load, error) {
			l := load.Checks{
				Dial: door.dial(p), Conns: measure.Connections, InFlight: measure.InFlight,
				Body: requests.Append, Cycle: tokensInUse,
			}
			return l.Open(ctx)
		}
		contenders, end, err := contend(ctx, reference(door.noop, newLoad), start{gateway, newLoad})
		if err != nil {
			return fmt.Errorf("%s: %w", door.name, err)
		}
		turns, err := b.turns(ctx, door.name, 3, b.duration, contenders)
		end()
		if err != nil {
			return fmt.Errorf("%s: %w", door.name, err)
		}
		d.Doors = append(d.Doors, comparison{Name: door.name, Reference: turns[0], Gateway: turns[1]})
	}
	b.record.Doors = d
	return nil
}

func doorTables(r *record) string {
	if r.Doors == nil {
		return ""
	}
	var rows [][]string
	plain := measure.Median(r.Doors.Doors[0].Gateway, measure.CPU)
	for i := range r.Doors.Doors {
		c := &r.Doors.Doors[i]
		cpu := measure.Median(c.Gateway, measure.CPU)
		rows = append(rows, []string{
			c.Name, microseconds(cpu), times(cpu / plain), c.times(measure.CPU),
			perSecond(measure.Median(c.Gateway, measure.Rate)), c.times(measure.Rate), milliseconds(measure.Median(c.Gateway, measure.P99)),
		})
	}
	return r.Doors.String() + "\n\n" +
		page.Table([]string{"way", "CPU per check", "of plain TCP's", "of a no-op's by the same way", "checks/s", "of the no-op's", "p99"}, rows)
}
