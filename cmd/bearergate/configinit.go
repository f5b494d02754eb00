package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
)

func newConfigInitCommand() *cobra.Command {
	var s config.Starter
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Long: `Write a first configuration, with comments that say what to change, for a proxy and a kind of verifier. With --out it goes
into a file, which is left alone if it is there, unless --force is given; else to standard output.

On a terminal without any flag it asks. Before anything is written it is read as serve does. A configuration with
introspection names a file for the secret, which is yours to make.

Exit code 0 if it was written, 2 if not.`,
		Example: `  bearergate config init --edge nginx --out bearergate.yaml
  bearergate config init --verifier jwt --issuer https://sso.example.com --audience orders`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().NFlag() == 0 {
				in, ok := cmd.InOrStdin().(*os.File)
				if !ok || !isTerminal(in) || !isTerminal(cmd.ErrOrStderr()) {
					return errors.New("no flags, and no terminal to ask at; give for example --edge envoy")
				}
				var err error
				if s, out, err = askForStarter(in, cmd.ErrOrStderr()); err != nil {
					return &ending{exitWrong, err}
				}
			}
			return writeStarter(cmd, s, out, force)
		},
	}
	f := cmd.Flags()
	addChoice(cmd, &s.Edge, "edge", "", "the proxy: "+strings.Join(config.StarterEdges(), ", "), config.StarterEdges()...)
	addChoice(cmd, &s.Verifier, "verifier", "", "who knows about tokens: "+strings.Join(config.StarterVerifiers(), ", "), config.StarterVerifiers()...)
	f.StringVar(&s.URL, "url", "", "`URL` of the endpoint, or of the keys with jwt")
	f.StringVar(&s.Issuer, "issuer", "", "`ISSUER` of the tokens (iss), for introspection and jwt")
	f.StringVar(&s.Audience, "audience", "", "`AUDIENCE` that tokens must be for (aud), for jwt")
	f.StringVar(&s.ClientID, "client-id", "", "`ID` of the gateway at the endpoint, for introspection")
	f.StringVar(&out, "out", "", "write into this `FILE`, instead of standard output")
	f.BoolVar(&force, "force", false, "write over a file that is there")
	return cmd
}

// writeStarter writes a starter, and says what is left to do.
func writeStarter(cmd *cobra.Command, s config.Starter, out string, force bool) error {
	if missing := s.Missing(); len(missing) > 0 {
		return &ending{exitWrong, fmt.Errorf("--verifier %s needs --%s", s.Verifier, strings.Join(missing, " and --"))}
	}
	if useless := s.Useless(); len(useless) > 0 {
		return &ending{exitWrong, fmt.Errorf("--verifier %s has no use for --%s; leave it out", s.Verifier, strings.Join(useless, " and --"))}
	}
	name := out
	if name == "" {
		name = "bearergate.yaml"
	}
	text, err := s.Write(name, os.LookupEnv)
	if err != nil {
		return &ending{exitWrong, err}
	}
	if out == "" {
		if _, err := cmd.OutOrStdout().Write(text); err != nil {
			return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
		}
	} else if err := writeNew(out, text, force); err != nil {
		return &ending{exitWrong, err}
	}
	if s.Verifier == "introspection" {
		secret := filepath.Join(filepath.Dir(name), config.StarterSecret)
		if _, err := os.Stat(secret); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(cmd.ErrOrStderr(), "bearergate: now put the secret of the client into %s, for the gateway's user alone; without it the configuration is refused\n", secret)
		}
	}
	return nil
}

// writeNew writes a file that is not there. With force it takes the place of one that is, all at once: a gateway may be
// watching it.
func writeNew(name string, text []byte, force bool) error {
	var file *os.File
	var err error
	if force {
		file, err = os.CreateTemp(filepath.Dir(name), ".bearergate-*")
	} else {
		file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // it holds no secret, and the gateway may run as another user
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("--out: %s is there already; name another file, or give --force to write over it", name)
	case err != nil:
		return fmt.Errorf("--out: %w", err)
	}
	_, err = file.Write(text)
	if force {
		err = errors.Join(err, file.Chmod(0o644)) // as above
	}
	err = errors.Join(err, file.Close())
	if err == nil && force {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // half a file is none
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

// maxAnswers bounds what is read from who answers the questions.
const maxAnswers = 16 << 10

// askForStarter asks for what the flags would say. An empty answer takes what stands in brackets.
func askForStarter(in io.Reader, out io.Writer) (s config.Starter, file string, err error) {
	lines := bufio.NewScanner(io.LimitReader(in, maxAnswers))
	ask := func(question, fallback string, good func(string) string) string {
		for err == nil {
			fmt.Fprint(out, question)
			if fallback != "" {
				fmt.Fprintf(out, " [%s]", fallback)
			}
			fmt.Fprint(out, ": ")
			if !lines.Scan() {
				err = errors.New("no answer; nothing was written")
				fmt.Fprintln(out)
				return ""
			}
			answer := strings.TrimSpace(lines.Text())
			if answer == "" {
				answer = fallback
			}
			if wrong := good(answer); wrong != "" {
				fmt.Fprintf(out, "  %s\n", wrong)
				continue
			}
			return answer
		}
		return ""
	}
	one := func(of []string) func(string) string {
		return func(answer string) string {
			if slices.Contains(of, answer) {
				return ""
			}
			return "write one of " + strings.Join(of, ", ")
		}
	}
	some := func(answer string) string {
		if answer == "" {
			return "it is needed"
		}
		return ""
	}
	anything := func(string) string { return "" }

	s.Edge = ask("Which proxy? "+strings.Join(config.StarterEdges(), ", "), config.StarterEdges()[0], one(config.StarterEdges()))
	s.Verifier = ask("Who knows about tokens? "+strings.Join(config.StarterVerifiers(), ", "), config.StarterVerifiers()[0], one(config.StarterVerifiers()))
	switch s.Verifier {
	case "verifytoken":
		s.URL = ask("URL of the endpoint", "https://api.i1.crm-now.de/v1/getOauthToken.php", some)
	case "introspection":
		s.URL = ask("URL of the introspection endpoint", "", some)
		s.ClientID = ask("The gateway's client ID there", "", some)
		s.Issuer = ask("Issuer of the tokens (iss), or nothing", "", anything)
	case "jwt":
		s.Issuer = ask("Issuer of the tokens (iss)", "", some)
		s.Audience = ask("Whom they must be for (aud)", "", some)
		s.URL = ask("URL of the keys, or nothing to take it from the issuer's metadata", "", anything)
	}
	file = ask("Into which file?", "bearergate.yaml", some)
	return s, file, err
}
