package config

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
)

// patient is a listener that tells when connections wait because the process has too
// many open files. The servers come again after a while, and say it nowhere that an
// operator looks.
type patient struct {
	net.Listener

	logger *slog.Logger
	seldom seldom
}

// Accept implements [net.Listener].
func (p *patient) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if tooManyFiles(err) && p.seldom.now() {
		p.logger.LogAttrs(context.Background(), slog.LevelWarn, "connections wait, because too many files are open; "+moreFiles)
	}
	return conn, err
}

// moreFiles is what to do about too many open files.
const moreFiles = "see who opens so many connections, or raise the limit (LimitNOFILE, ulimit -n)"

// tooManyFiles reports whether something failed because the process, or the machine, can open no more.
func tooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
