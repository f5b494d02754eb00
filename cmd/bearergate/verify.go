package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/verifier"
)

func newVerifyCommand() *cobra.Command {
	var (
		endpoint, encoding, tokenFile string
		file, policy, name            string
		plaintext                     bool
		timeout                       time.Duration
		as                            output
	)
	cmd := &cobra.Command{
		Use:   "verify --token-file FILE",
		Short: "Ask whether a token is good",
		Long: `Ask the verifytoken endpoint about one token, as the gateway does, without any cache. With --config, ask those whom
the gateway would ask: the verifiers of default_policy or of --policy, or the one of --verifier, of whatever kind. What a
policy requires besides a good token is not looked at; see explain.

Exit code 0 if the token is good, 1 if it is not or cannot be a token, 3 if nobody could tell.
Standard output says which, and never the token.`,
		Example: `  bearergate token --client-id partner --client-secret-file secret.txt | bearergate verify --token-file -
  bearergate verify --config bearergate.yaml --policy partners --token-file token.txt`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return &ending{exitWrong, errors.New("--timeout: give more than 0, for example 3s")}
			}
			value, err := readSecret(cmd, "token", tokenFile, "token-file", "")
			if err != nil {
				return &ending{exitWrong, err}
			}
			var asked asker
			if file != "" {
				c, err := config.Load(file)
				if err != nil {
					return &ending{exitWrong, err}
				}
				a, err := config.NewAsker(c, policy, name, version())
				if err != nil {
					return &ending{exitWrong, fmt.Errorf("%s: %w", file, err)}
				}
				if !cmd.Flags().Changed("timeout") {
					timeout = a.Timeout
				}
				asked = a
			} else {
				v, err := verifier.NewVerifytoken(verifier.VerifytokenOptions{
					Name: "verifytoken", URL: endpoint, AllowPlaintext: plaintext, Encoding: verifier.Encoding(encoding),
					MaxConnections: 1, UserAgent: "bearergate/" + version(),
				})
				if err != nil {
					return &ending{exitWrong, err}
				}
				asked = alone{v}
			}
			defer asked.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, code := verify(ctx, asked, value)
			if err := as.print(cmd.OutOrStdout(), answer, answer.text()); err != nil {
				return err
			}
			if code != exitGood {
				return &ending{code: code}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "", "ask as the configuration `FILE` says")
	f.StringVar(&policy, "policy", "", "ask the verifiers of the policy with this `NAME`")
	f.StringVar(&name, "verifier", "", "ask the verifier with this `NAME`")
	f.StringVar(&endpoint, "url", crmnow.DefaultURL, "the endpoint's `URL`")
	addChoice(cmd, &encoding, "encoding", "", "how the token is sent: multipart or form", string(verifier.Multipart), string(verifier.Form))
	tokenFlag(cmd, &tokenFile)
	f.BoolVar(&plaintext, "allow-plaintext", false, "let the token travel over http:// to a host that is not loopback")
	f.DurationVar(&timeout, "timeout", 3*time.Second, "how long the answer may take; with --config, as long as that says")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	for _, other := range []string{"url", "encoding", "allow-plaintext"} {
		cmd.MarkFlagsMutuallyExclusive("config", other)
	}
	cmd.MarkFlagsMutuallyExclusive("policy", "verifier")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" && (cmd.Flags().Changed("policy") || cmd.Flags().Changed("verifier")) {
			return errors.New("--policy and --verifier are names in a configuration; give --config FILE too")
		}
		return nil
	}
	as.flag(cmd)
	return cmd
}

// asker is who can be asked about a token.
type asker interface {
	Ask(context.Context, bearer.Token) (verifier.Verdict, []config.Refusal, error)
	Close()
}

// alone asks an endpoint, without any configuration.
type alone struct{ *verifier.Verifytoken }

// Ask implements asker.
func (a alone) Ask(ctx context.Context, t bearer.Token) (verifier.Verdict, []config.Refusal, error) {
	verdict, err := a.Verify(ctx, t)
	return verdict, nil, err
}

// verification is the answer about a token.
type verification struct {
	Result string `json:"result"` // valid, invalid, malformed or no_answer
	Detail string `json:"detail,omitempty"`
	Took   int64  `json:"took_ms"`
}

func (v *verification) text() string {
	switch v.Result {
	case "valid":
		return fmt.Sprintf("the token is good (asked for %d ms)\n", v.Took)
	case "invalid":
		text := fmt.Sprintf("the token is not good (asked for %d ms)\n", v.Took)
		if v.Detail != "" {
			text += "  " + v.Detail + "\n"
		}
		return text
	case "malformed":
		return "this cannot be a token: " + v.Detail + "\n"
	default:
		return "nobody could tell: " + v.Detail + "\n"
	}
}

func verify(ctx context.Context, asked asker, value string) (*verification, int) {
	parser, err := bearer.NewParser(bearer.MaxTokenBytes)
	must(err)
	token, err := parser.ParseToken(value)
	if err != nil {
		return &verification{Result: "malformed", Detail: err.Error()}, exitNo
	}
	begin := time.Now()
	verdict, why, err := asked.Ask(ctx, token)
	took := time.Since(begin).Milliseconds()
	switch {
	case err != nil:
		return &verification{Result: "no_answer", Detail: err.Error(), Took: took}, exitUnknown
	case verdict.Valid:
		return &verification{Result: "valid", Took: took}, exitGood
	default:
		var details []string
		for _, w := range why {
			details = append(details, w.Verifier+": "+printable(w.Why))
		}
		return &verification{Result: "invalid", Detail: strings.Join(details, "; "), Took: took}, exitNo
	}
}
