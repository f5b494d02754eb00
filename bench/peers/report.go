package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
)

const (
	begin = "<!-- peers:begin -->\n"
	end   = "<!-- peers:end -->\n"
)

// report is the section of the figures, in Markdown.
func report(ctx context.Context, s *settings, groups []*group) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Measured on %s with %s: %s, %d cores, %s/%s. Servers had %d of the cores and the load %d. Medians of %d rounds of %s, in which all of a "+
		"table took turns. Every cache knew all %d tokens, and the endpoints were gone.\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), processor(), measure.AllCores().Count, runtime.GOOS, runtime.GOARCH,
		measure.ServerCores().Count, measure.ServerCores().Others().Count, s.rounds, s.duration, tokensInUse)
	for _, g := range groups {
		b.WriteString("\n" + g.heading())
		for _, c := range g.contenders {
			if c.missing != "" {
				fmt.Fprintf(&b, "| %s | %s | | | | | | |\n", c.name, c.missing)
				continue
			}
			version := c.version
			if version == "" && !strings.HasPrefix(c.name, "no-op") {
				version = ownVersion(ctx)
			}
			first := g.contenders[0].turns
			fmt.Fprintf(&b, "| %s | %s | %.1f µs | x%.2f | %.0f | x%.2f | %.2f ms | x%.2f |\n", c.name, version,
				measure.Median(c.turns, measure.CPU)/1000, measure.Ratio(c.turns, first, measure.CPU),
				measure.Median(c.turns, measure.Rate), measure.Ratio(c.turns, first, measure.Rate),
				measure.Median(c.turns, measure.P99)/float64(time.Millisecond), measure.Ratio(c.turns, first, measure.P99))
		}
	}
	return b.String()
}

func (g *group) heading() string {
	of := "of the no-op's"
	if g.name == "nginx" {
		of = "of nginx alone"
	}
	return fmt.Sprintf("| %s | version | CPU per request | %s | requests/s | %[2]s | p99 | %[2]s |\n|---|---|---:|---:|---:|---:|---:|---:|\n", g.name, of)
}

// ownVersion is the commit that the gateway was built from.
func ownVersion(ctx context.Context) string { return versionOf(ctx, ".") }

// processor is what the machine says of its processor.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}

// writeSection puts a text between the markers of a document.
func writeSection(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed, err := between(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(changed), 0o644) //nolint:gosec // a document for all to read
}

// between returns a document with a text between its markers.
func between(document, text string) (string, error) {
	before, rest, hasBegin := strings.Cut(document, begin)
	_, after, hasEnd := strings.Cut(rest, end)
	if !hasBegin || !hasEnd {
		return "", errors.New("there are no lines " + strings.TrimSpace(begin) + " and " + strings.TrimSpace(end) + " between which to write")
	}
	return before + begin + "\n" + strings.Trim(text, "\n") + "\n\n" + end + after, nil
}
