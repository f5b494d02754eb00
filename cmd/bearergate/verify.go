package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/verifier"
)

func newVerifyCommand() *cobra.Command {
	var (
		endpoint, encoding, tokenFile string
		plaintext                     bool
		timeout                       time.Duration
		as                            output
	)
	cmd := &cobra.Command{
		Use:   "verify --token-file FILE",
		Short: "Ask the endpoint whether a token is good",
		Long: `Ask the verifytoken endpoint about one token, as the gateway does, without any cache.

Exit code 0 if the token is good, 1 if it is not or cannot be a token, 3 if the endpoint gave no answer.
Standard output says which, and never the token.`,
		Example: "  bearergate token --client-id partner --client-secret-file secret.txt | bearergate verify --token-file -",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return &ending{exitWrong, errors.New("--timeout: give more than 0, for example 3s")}
			}
			value, err := readSecret(cmd, "token", tokenFile, "token-file", "")
			if err != nil {
				return &ending{exitWrong, err}
			}
			client, err := verifier.NewVerifytoken(verifier.VerifytokenOptions{
				Name: "verifytoken", URL: endpoint, AllowPlaintext: plaintext, Encoding: verifier.Encoding(encoding),
				MaxConnections: 1, UserAgent: "bearergate/" + version(),
			})
			if err != nil {
				return &ending{exitWrong, err}
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, code := verify(ctx, client, value)
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
	f.StringVar(&endpoint, "url", crmnow.DefaultURL, "the endpoint's `URL`")
	addChoice(cmd, &encoding, "encoding", "", "how the token is sent: multipart or form", string(verifier.Multipart), string(verifier.Form))
	f.StringVar(&tokenFile, "token-file", "", "a `FILE` with the token; - for standard input")
	f.BoolVar(&plaintext, "allow-plaintext", false, "let the token travel over http:// to a host that is not loopback")
	f.DurationVar(&timeout, "timeout", 3*time.Second, "how long the answer may take")
	must(cmd.MarkFlagFilename("token-file"))
	as.flag(cmd)
	return cmd
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
		return fmt.Sprintf("the token is not good (asked for %d ms)\n", v.Took)
	case "malformed":
		return "this cannot be a token: " + v.Detail + "\n"
	default:
		return "nobody could tell: " + v.Detail + "\n"
	}
}

func verify(ctx context.Context, client verifier.Verifier, value string) (*verification, int) {
	parser, err := bearer.NewParser(bearer.MaxTokenBytes)
	must(err)
	token, err := parser.ParseToken(value)
	if err != nil {
		return &verification{Result: "malformed", Detail: err.Error()}, exitNo
	}
	begin := time.Now()
	verdict, err := client.Verify(ctx, token)
	took := time.Since(begin).Milliseconds()
	switch {
	case err != nil:
		return &verification{Result: "no_answer", Detail: err.Error(), Took: took}, exitUnknown
	case verdict.Valid:
		return &verification{Result: "valid", Took: took}, exitGood
	default:
		return &verification{Result: "invalid", Took: took}, exitNo
	}
}
