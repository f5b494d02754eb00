package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

func newTopCommand() *cobra.Command {
	var r remote
	var as output
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch how a running gateway does",
		Long: `Show how a running gateway does, again and again until q or Ctrl-C: how many requests are decided, by outcome and reason,
how long it takes, how verifiers, breakers and caches stand, and who asks most. A rate is what one second had on average,
in the last five, in the last minute and in the last five minutes.

With --once, or if standard output is no terminal, it is one picture without colours; with --output json what it is drawn
from: the answers to the calls Status and Activity.

Keys: q ends it, p stops the picture and lets it go on, w changes the time for which it is said who asks most.

Exit code 0, or 3 if there is no answer at the beginning.`,
		Example: `  bearergate top --admin 127.0.0.1:9190
  bearergate top --output json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond || interval > time.Minute {
				return &ending{exitWrong, errors.New("--interval: give 100ms to 1m")}
			}
			if once || as.format == "json" || !isTerminal(cmd.OutOrStdout()) || !isTerminalIn(cmd) {
				return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
					s, err := look(ctx, c)
					if err != nil {
						return err
					}
					value, err := s.asJSON()
					if err != nil {
						return &ending{exitUnknown, err}
					}
					return as.print(cmd.OutOrStdout(), value, (&picture{sight: s, width: plainWidth}).text())
				})
			}
			return watchTop(cmd, &r, interval)
		},
	}
	r.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&once, "once", false, "one picture")
	f.DurationVar(&interval, "interval", time.Second, "how long it is to the next picture")
	as.flag(cmd)
	return cmd
}

// plainWidth is how wide a picture is that is not for a terminal.
const plainWidth = 100

// isTerminalIn reports whether keys can be read.
func isTerminalIn(cmd *cobra.Command) bool {
	file, ok := cmd.InOrStdin().(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}

// sight is how a gateway does.
type sight struct {
	status   *adminv1.StatusResponse
	activity *adminv1.ActivityResponse
}

func look(ctx context.Context, c adminv1connect.AdminServiceClient) (*sight, error) {
	s, err := c.Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	a, err := c.Activity(ctx, &adminv1.ActivityRequest{})
	if err != nil {
		return nil, err
	}
	return &sight{s, a}, nil
}

// asJSON is both answers with the names of the definition.
func (s *sight) asJSON() (json.RawMessage, error) {
	options := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}
	status, err := options.Marshal(s.status)
	if err != nil {
		return nil, err
	}
	activity, err := options.Marshal(s.activity)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]json.RawMessage{"status": status, "activity": activity})
}

// watchTop draws on a terminal until somebody ends it.
func watchTop(cmd *cobra.Command, r *remote, interval time.Duration) error {
	client, done, err := r.client(cmd)
	if err != nil {
		return &ending{exitWrong, err}
	}
	defer done()
	ask := func() (*sight, error) {
		ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
		defer cancel()
		return look(ctx, client)
	}
	first, err := ask()
	if err != nil {
		return endingOf(err) // before the screen is taken
	}
	m := &topModel{picture: picture{sight: first, colour: wantsColour(cmd.OutOrStdout())}, ask: ask, interval: interval}
	program := tea.NewProgram(m, tea.WithoutSignalHandler(), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(cmd.OutOrStdout()))
	// A signal ends it as q does. With the context, bubbletea would not wait for who reads
	// the keys.
	stop := context.AfterFunc(cmd.Context(), program.Quit)
	defer stop()
	if _, err := program.Run(); err != nil {
		return &ending{exitUnknown, fmt.Errorf("the terminal: %w", err)}
	}
	return nil
}

// topModel is what bubbletea draws.
type topModel struct {
	picture

	ask      func() (*sight, error)
	interval time.Duration
}

// The messages of a topModel.
type (
	due  struct{}
	seen struct {
		sight *sight
		err   error
	}
)

// Init implements [tea.Model].
func (m *topModel) Init() tea.Cmd { return m.wait() }

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return due{} })
}

// Update implements [tea.Model].
func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case tea.KeyPressMsg:
		switch message.String() {
		case "q", "ctrl+c", "esc":
			return m, tea.Quit
		case "p", "space":
			m.stopped = !m.stopped
		case "w":
			m.window++
		}
	case due:
		if !m.stopped {
			return m, func() tea.Msg {
				s, err := m.ask()
				return seen{s, err}
			}
		}
		next := m.wait()
		return m, next
	case seen:
		if m.err = message.err; m.err == nil {
			m.sight = message.sight
		}
		next := m.wait()
		return m, next
	}
	return m, nil
}

// View implements [tea.Model].
func (m *topModel) View() tea.View {
	v := tea.NewView("")
	if m.width > 0 {
		v.Content = strings.TrimSuffix(m.text(), "\n")
	}
	v.AltScreen = true
	return v
}
