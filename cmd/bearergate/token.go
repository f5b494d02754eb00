package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// The environment variables that stand for flags of token.
const (
	clientIDVariable     = "BEARERGATE_CLIENT_ID"
	clientSecretVariable = "BEARERGATE_CLIENT_SECRET" //nolint:gosec // a name, not a secret
	tokenVariable        = "BEARERGATE_TOKEN"         //nolint:gosec // a name, not a token
)

func newTokenCommand() *cobra.Command {
	var (
		options            crmnow.ClientOptions
		secretFile         string
		fingerprint        bool
		tokenFile, keyFile string
		as                 output
	)
	cmd := &cobra.Command{
		Use:   "token (--client-id ID --client-secret-file FILE | --fingerprint --token-file FILE)",
		Short: "Fetch a token as a partner does, or say a token's fingerprint",
		Long: `Fetch a token from the endpoint as a partner does: POST without a body, with client ID and secret as Basic
credentials, each form-urlencoded first (RFC 6749 section 2.3.1). Standard output gets the token and nothing else.

The ID may stand in ` + clientIDVariable + `, the secret in ` + clientSecretVariable + `.

With --fingerprint, fetch nothing, and say by which twelve digits a gateway names a token that you have, in a file or in
` + tokenVariable + `: one with fingerprint.plain in its configuration, or with --key-file one with that key as its
fingerprint.key. A gateway without either has fingerprints that only itself can make.

Exit code 1 if the endpoint refuses the credentials or the request, 3 if it gave no token for another reason.`,
		Example: `  bearergate token --client-id partner --client-secret-file secret.txt
  bearergate token --fingerprint --token-file - <token.txt`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if fingerprint {
				return tellFingerprint(cmd, tokenFile, keyFile, as)
			}
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
	f.BoolVar(&fingerprint, "fingerprint", false, "say the fingerprint of the token in --token-file")
	tokenFlag(cmd, &tokenFile)
	f.StringVar(&keyFile, "key-file", "", "make the fingerprint with the key in this `FILE`; - for standard input")
	must(cmd.MarkFlagFilename("key-file"))
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !fingerprint && (cmd.Flags().Changed("token-file") || cmd.Flags().Changed("key-file")) {
			return errors.New("--token-file and --key-file are for --fingerprint; give it, too")
		}
		return nil
	}
	for _, other := range []string{"url", "client-id", "client-secret-file", "allow-plaintext", "timeout"} {
		cmd.MarkFlagsMutuallyExclusive("fingerprint", other)
	}
	as.flag(cmd)
	return cmd
}

// tellFingerprint prints the fingerprint of a token.
func tellFingerprint(cmd *cobra.Command, tokenFile, keyFile string, as output) error {
	if tokenFile == "-" && keyFile == "-" {
		return &ending{exitWrong, errors.New("--token-file and --key-file: only one of them can be standard input")}
	}
	fingerprints, how := bearer.PlainFingerprints(), "plain"
	if cmd.Flags().Changed("key-file") {
		key, err := readSecret(cmd, "key", keyFile, "key-file", "")
		if err == nil {
			err = config.CheckFingerprintKey(key)
		}
		if err != nil {
			return &ending{exitWrong, fmt.Errorf("--key-file: %w", err)}
		}
		fingerprints, how = bearer.KeyedFingerprints([]byte(key)), "key"
	}
	value, err := readSecret(cmd, "token", tokenFile, "token-file", tokenVariable)
	if err != nil {
		return &ending{exitWrong, err}
	}
	parser, err := bearer.NewParser(bearer.MaxTokenBytes)
	must(err)
	token, err := parser.WithFingerprints(fingerprints).ParseToken(value)
	if err != nil {
		return &ending{exitWrong, fmt.Errorf("this cannot be a token: %w", err)}
	}
	return as.print(cmd.OutOrStdout(), struct {
		Fingerprint string `json:"fingerprint"`
		By          string `json:"by"` // plain or key
	}{token.Fingerprint(), how}, token.Fingerprint()+"\n")
}

// fetchCode tells a refusal from trouble.
func fetchCode(err error) int {
	var refused *crmnow.FetchError
	if errors.As(err, &refused) && (refused.Problem == crmnow.ProblemCredentials || refused.Problem == crmnow.ProblemRequest) {
		return exitNo
	}
	return exitUnknown
}
