package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// maxPieceBytes bounds each piece of a bundle: more of it would not be read anyway.
const maxPieceBytes = 8 << 20

func newSupportBundleCommand() *cobra.Command {
	var r remote
	var as output
	var out string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect what helps to find a fault of a running gateway",
		Long: `Collect what helps to find a fault of a running gateway into one file: how it stands, its configuration without
secrets, its metrics, what was decided in the last minutes, the denials, how the process and its machine are, and,
where api.profiles allows it, what its goroutines do.

All of it is text, so that you can read it before you hand it to somebody: tar -xzf FILE. Tokens are in it by their
fingerprints alone; secrets, what stands in tokens, and addresses of clients are not. Nobody but you can read the file.
What cannot be had is left out, and the bundle says so.

Exit code 3 if the gateway gave nothing.`,
		Example: "  bearergate support-bundle --admin 127.0.0.1:9190",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, base, done, err := r.reach(cmd)
			if err != nil {
				return &ending{exitWrong, err}
			}
			defer done()
			now := time.Now().UTC()
			name := "bearergate-support-" + now.Format("20060102T150405Z")
			if out == "" {
				out = name + ".tar.gz"
			}
			file, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			switch {
			case errors.Is(err, os.ErrExist):
				return &ending{exitWrong, fmt.Errorf("--out: %s is there already; name another file", printable(out))}
			case err != nil:
				return &ending{exitWrong, fmt.Errorf("--out: %w", bareFileError(err))}
			}
			b := &bundle{taken: now, folder: name}
			for _, p := range pieces(client, base) {
				ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
				b.add(ctx, p)
				cancel()
			}
			if err := b.write(file); err != nil {
				return &ending{exitUnknown, fmt.Errorf("--out: %w", bareFileError(err))}
			}
			if err := as.print(cmd.OutOrStdout(), b.summary(out), b.text(out)); err != nil {
				return err
			}
			if len(b.found) == 0 {
				return &ending{exitUnknown, errors.New("the gateway gave nothing; does it run, and is --admin its admin listener?")}
			}
			return nil
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "the `FILE` to write, which must not be there yet; without it a new one in this folder")
	must(cmd.MarkFlagFilename("out", "gz"))
	as.flag(cmd)
	return cmd
}

// piece is something that goes into a bundle.
type piece struct {
	file, about string
	get         func(context.Context) ([]byte, error)
}

// pieces are those that a running gateway gives.
func pieces(client *http.Client, base string) []piece {
	calls := callsOver(client, base)
	page := func(path string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return getPage(ctx, client, base+path) }
	}
	return []piece{
		{"status.json", "how it stands, its listeners, verifiers and caches, and what came of the last reload", asked(calls.Status, &adminv1.StatusRequest{})},
		{"readyz.json", "whether requests may be sent there, and which part says so", page("/readyz")},
		{"reload.json", "the last reload with its error, and what is in shadow", page("/status")},
		{"configuration.yaml", "the configuration in force, without secrets", func(ctx context.Context) ([]byte, error) {
			c, err := calls.GetConfiguration(ctx, &adminv1.GetConfigurationRequest{})
			return []byte(c.GetYaml()), err
		}},
		{"metrics.txt", "what it counts", page("/metrics")},
		{"activity.json", "what was decided in the last minutes, and the busiest tokens and policies", func(ctx context.Context) ([]byte, error) {
			a, err := calls.Activity(ctx, &adminv1.ActivityRequest{})
			if err != nil {
				return nil, err
			}
			for _, top := range a.GetTop() { // they are personal data, and need not go further
				top.AllowedClients, top.RefusedClients = nil, nil
			}
			return readable(a)
		}},
		{"denials.json", "the tokens that an operator has denied, by fingerprint", func(ctx context.Context) ([]byte, error) {
			all, err := calls.ListDenials(ctx, &adminv1.ListDenialsRequest{})
			if err != nil {
				return nil, err
			}
			for _, d := range all.GetDenials() { // what people write, and who they are
				d.Reason, d.Who = "", ""
			}
			return readable(all)
		}},
		{"process.json", "the program, the process and its machine", asked(calls.Diagnostics, &adminv1.DiagnosticsRequest{})},
		{"goroutines.txt", "what its goroutines do", page("/debug/pprof/goroutine?debug=2")},
		{"heap.txt", "where its memory goes", page("/debug/pprof/heap?debug=1")},
	}
}

// asked makes a call, and writes its answer.
func asked[Q, A proto.Message](call func(context.Context, Q) (A, error), question Q) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		answer, err := call(ctx, question)
		if err != nil {
			return nil, err
		}
		return readable(answer)
	}
}

func readable(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true}.Marshal(m)
}

// getPage gets a page of the admin listener.
func getPage(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	got, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(io.LimitReader(got.Body, maxPieceBytes+1))
	switch {
	case err != nil:
		return nil, err
	case got.StatusCode == http.StatusNotFound && strings.Contains(url, "/debug/pprof/"):
		return nil, errors.New("the listener has no api.profiles: true")
	case got.StatusCode != http.StatusOK && (got.StatusCode != http.StatusServiceUnavailable || !strings.HasSuffix(url, "/readyz")):
		return nil, errors.New("the gateway answers " + got.Status)
	}
	return text, nil
}

// bundle is what was collected.
type bundle struct {
	taken   time.Time
	folder  string
	found   []foundPiece
	missing []missingPiece
}

type foundPiece struct {
	piece

	text []byte
}

type missingPiece struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// add gets a piece, or notes why there is none.
func (b *bundle) add(ctx context.Context, p piece) {
	text, err := p.get(ctx)
	if err == nil && len(text) > maxPieceBytes {
		text, err = nil, fmt.Errorf("it has more than %d MiB", maxPieceBytes>>20)
	}
	if err != nil {
		b.missing = append(b.missing, missingPiece{p.file, printable(whyNot(err))})
		return
	}
	b.found = append(b.found, foundPiece{p, text})
}

// whyNot says in words what is wrong with a call.
func whyNot(err error) string {
	if ended, ok := errors.AsType[*ending](endingOf(err)); ok && ended.err != nil {
		return strings.TrimPrefix(strings.TrimPrefix(ended.err.Error(), "no answer from the gateway: "), "the gateway cannot answer: ")
	}
	return err.Error()
}

// readme says what is in the bundle, and what is not.
func (b *bundle) readme() string {
	var text strings.Builder
	fmt.Fprintf(&text, `What bearergate support-bundle %s collected at %s.

All of it is text. Tokens are in it by their fingerprints; secrets, what stands in tokens, and addresses of clients are
not meant to be. Read it before you hand it on: names of hosts, files, policies and verifiers are in it.

`, version(), b.taken.Format(time.RFC3339))
	for _, p := range b.found {
		fmt.Fprintf(&text, "%-20s %s\n", p.file, p.about)
	}
	if len(b.missing) > 0 {
		text.WriteString("\nNot in it:\n")
	}
	for _, m := range b.missing {
		fmt.Fprintf(&text, "%-20s %s\n", m.File, m.Why)
	}
	return text.String()
}

// write writes the bundle into a file, which nobody but its owner reads, and closes it.
func (b *bundle) write(file *os.File) (err error) {
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			_ = os.Remove(file.Name()) // half of it would look like all
		}
	}()
	zipped := gzip.NewWriter(file)
	archive := tar.NewWriter(zipped)
	add := func(name string, text []byte) error {
		return errors.Join(archive.WriteHeader(&tar.Header{
			Name: b.folder + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.taken, Format: tar.FormatPAX,
		}), writeAll(archive, text))
	}
	if err := add("README.txt", []byte(b.readme())); err != nil {
		return err
	}
	for _, p := range b.found {
		if err := add(p.file, p.text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

func writeAll(w io.Writer, text []byte) error {
	_, err := w.Write(text)
	return err
}

type bundleSummary struct {
	File    string         `json:"file"`
	Holds   []string       `json:"holds"`
	Missing []missingPiece `json:"missing"`
}

func (b *bundle) summary(path string) bundleSummary {
	s := bundleSummary{File: path, Holds: []string{}, Missing: append([]missingPiece{}, b.missing...)}
	for _, p := range b.found {
		s.Holds = append(s.Holds, p.file)
	}
	return s
}

func (b *bundle) text(path string) string {
	var text strings.Builder
	s := b.summary(path)
	fmt.Fprintf(&text, "%s: %s\n", printable(path), strings.Join(s.Holds, ", "))
	for _, m := range s.Missing {
		fmt.Fprintf(&text, "not in it: %s: %s\n", m.File, m.Why)
	}
	text.WriteString("read it before you hand it on: tar -xzf " + printable(path) + "\n")
	return text.String()
}
