package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/crmnow"
)

func newEmulateCommand() *cobra.Command {
	var (
		address, id, secretFile, logFormat string
		options                            crmnow.EmulatorOptions
	)
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Run an emulator of the crm-now endpoint",
		Long: `Run an emulator of the crm-now endpoint: it issues tokens to one client and answers verifytoken, as the public
description says. It is for tests and for trying things out. With --control it can be made slow or broken over HTTP
(` + crmnow.ControlPath + `faults) and tells what it has counted (` + crmnow.ControlPath + `stats).

The client's secret comes from --client-secret-file or ` + clientSecretVariable + `; without either, one is made up and printed.`,
		Example: "  bearergate emulate --listen 127.0.0.1:8081 --lifetime 30s --control",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, announce := rand.Text(), true
			if secretFile != "" || os.Getenv(clientSecretVariable) != "" {
				var err error
				if secret, err = readSecret(cmd, "client secret", secretFile, "client-secret-file", clientSecretVariable); err != nil {
					return &ending{exitWrong, err}
				}
				announce = false
			}
			options.Clients = map[string]crmnow.Secret{id: crmnow.NewSecret(secret)}
			options.Logger = newLogger(cmd.ErrOrStderr(), slog.LevelInfo, logFormat)
			emulator, err := crmnow.NewEmulator(options)
			if err != nil {
				return &ending{exitWrong, err}
			}
			var config net.ListenConfig
			l, err := config.Listen(cmd.Context(), "tcp", address)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("--listen: %w", err)}
			}
			if ip, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !ip.Addr().IsLoopback() {
				options.Logger.Warn("the emulator can be reached from outside, and it speaks no TLS; it is for tests alone")
			}
			options.Logger.Info("listening", slog.String("listener", "emulator"), slog.String("address", l.Addr().String()),
				slog.String("url", "http://"+l.Addr().String()+crmnow.Path))
			if announce {
				fmt.Fprintf(cmd.OutOrStdout(), "client ID:     %s\nclient secret: %s\n", id, secret)
			}
			if err := emulator.Serve(cmd.Context(), l); err != nil {
				return &ending{exitUnknown, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "listen", "127.0.0.1:8081", "the `ADDRESS` to listen on, host:port; port 0 picks a free one")
	f.StringVar(&id, "client-id", cmp.Or(os.Getenv(clientIDVariable), "partner"), "the `ID` of the one client")
	f.StringVar(&secretFile, "client-secret-file", "", "a `FILE` with the client's secret; - for standard input")
	f.DurationVar(&options.Lifetime, "lifetime", crmnow.DefaultLifetime, "how long a token is good")
	f.IntVar(&options.JWTBytes, "jwt-bytes", 0, "give tokens the shape of a JWT of this many bytes (1024 to 16384; 0: short opaque ones)")
	f.BoolVar(&options.ServeControl, "control", false, "answer under "+crmnow.ControlPath+" too, for whoever reaches the address")
	addChoice(cmd, &logFormat, "log-format", "", "auto (text on a terminal, else json), json or text", "auto", "json", "text")
	must(cmd.MarkFlagFilename("client-secret-file"))
	return cmd
}
