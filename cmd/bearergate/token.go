package main

import (
	"cmp"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/crmnow"
)

// The environment variables that stand for flags of token.
const (
	clientIDVariable     = "BEARERGATE_CLIENT_ID"
	clientSecretVariable = "BEARERGATE_CLIENT_SECRET" //nolint:gosec // a name, not a secret
)

func newTokenCommand() *cobra.Command {
	var (
		options    crmnow.ClientOptions
		secretFile string
		as         output
	)
	cmd := &cobra.Command{
		Use:   "token --client-id ID --client-secret-file FILE",
		Short: "Fetch a token as a partner does",
		Long: `Fetch a token from the endpoint as a partner does: POST without a body, with client ID and secret as Basic
credentials, each form-urlencoded first (RFC 6749 section 2.3.1). Standard output gets the token and nothing else.

The ID may stand in ` + clientIDVariable + `, the secret in ` + clientSecretVariable + `.

Exit code 1 if the endpoint refuses the credentials or the request, 3 if it gave no token for another reason.`,
		Example: "  bearergate token --client-id partner --client-secret-file secret.txt",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.ID = cmp.Or(options.ID, os.Getenv(clientIDVariable))
			if options.ID == "" {
				return &ending{exitWrong, errors.New("no client ID; give --client-id, or set " + clientIDVariable)}
			}
			secret, err := readSecret(cmd, "client secret", secretFile, "client-secret-file", clientSecretVariable)
			if err != nil {
				return &ending{exitWrong, err}
			}
			options.Secret = crmnow.NewSecret(secret)
			options.UserAgent = "bearergate/" + version()
			client, err := crmnow.NewClient(options)
			if err != nil {
				return &ending{exitWrong, err}
			}
			defer client.Close()
			grant, err := client.Token(cmd.Context())
			if err != nil {
				return &ending{fetchCode(err), err}
			}
			token := grant.AccessToken.Reveal()
			return as.print(cmd.OutOrStdout(), struct {
				AccessToken string    `json:"access_token"`
				TokenType   string    `json:"token_type"`
				ExpiresIn   int64     `json:"expires_in"`
				ExpiresAt   time.Time `json:"expires_at"`
				Scope       string    `json:"scope,omitempty"`
			}{token, "Bearer", int64(grant.ExpiresIn / time.Second), grant.ExpiresAt.UTC().Truncate(time.Second), grant.Scope}, token+"\n")
		},
	}
	f := cmd.Flags()
	f.StringVar(&options.URL, "url", crmnow.DefaultURL, "the endpoint's `URL`")
	f.StringVar(&options.ID, "client-id", "", "the client `ID`")
	f.StringVar(&secretFile, "client-secret-file", "", "a `FILE` with the client secret; - for standard input")
	f.BoolVar(&options.AllowPlaintext, "allow-plaintext", false, "let the secret travel over http:// to a host that is not loopback")
	f.DurationVar(&options.Timeout, "timeout", 10*time.Second, "how long the fetch may take")
	must(cmd.MarkFlagFilename("client-secret-file"))
	as.flag(cmd)
	return cmd
}

// fetchCode tells a refusal from trouble.
func fetchCode(err error) int {
	var refused *crmnow.FetchError
	if errors.As(err, &refused) && (refused.Problem == crmnow.ProblemCredentials || refused.Problem == crmnow.ProblemRequest) {
		return exitNo
	}
	return exitUnknown
}
