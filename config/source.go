package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// Source is a configuration file that can be read again. It is used by one
// goroutine at a time.
type Source struct {
	path string
	// file is the one that was taken last, nil if it was none that can be read again.
	// As long as it is open, no other file can have its number.
	file  *os.File
	taken []byte
	seen  [sha256.Size]byte // of the text that was seen last
	first *Reading          // what Open returned
}

// name is its path; "" if there is none.
func (s *Source) name() string {
	if s == nil {
		return ""
	}
	return s.path
}

// Open is [Load] with the file kept, so that a gateway can read it again.
func Open(path string) (*configv1.Config, *Source, error) {
	s := &Source{path: path}
	text, err := s.read(0)
	if err != nil {
		return nil, nil, err
	}
	if s.first, err = read(path, text, os.LookupEnv); err != nil {
		s.Close()
		return nil, nil, err
	}
	return s.first.Config, s, nil
}

// Close lets go of the file.
func (s *Source) Close() {
	if s != nil && s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// read takes the file as it is now.
func (s *Source) read(flags int) ([]byte, error) {
	text, file, err := readFile(s.path, flags)
	if err != nil {
		return nil, err
	}
	s.keep(text, file)
	return text, nil
}

// again takes the file as it is now, if it is one that can be read again.
func (s *Source) again() ([]byte, error) { return s.read(syscall.O_NONBLOCK) }

// look takes the file if another one has come in its place. If it was written in
// place, which may still be going on, it returns what was taken before, and says so.
func (s *Source) look() (text []byte, inPlace bool, err error) {
	text, file, err := readFile(s.path, syscall.O_NONBLOCK)
	if err != nil {
		return nil, false, err
	}
	s.seen = sha256.Sum256(text)
	if s.file != nil && !bytes.Equal(text, s.taken) {
		before, err := s.file.Stat()
		now, nowErr := file.Stat()
		if err == nil && nowErr == nil && os.SameFile(before, now) {
			_ = file.Close()
			return s.taken, true, nil
		}
	}
	s.keep(text, file)
	return text, false, nil
}

func (s *Source) keep(text []byte, file *os.File) {
	s.Close()
	s.taken, s.file = text, file
}

// readFile reads a file up to one byte more than is allowed, enough to know that it is too large. It comes open unless
// it can be read but once.
func readFile(path string, flags int) ([]byte, *os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	info, err := file.Stat()
	once := err != nil || !info.Mode().IsRegular()
	var text []byte
	if once && flags&syscall.O_NONBLOCK != 0 { // a pipe whose end is not to be waited for
		err = errors.New("it is no regular file")
	} else {
		text, err = io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	}
	if once || err != nil {
		_ = file.Close()
		file = nil
	}
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	return text, file, nil
}

func unreadable(path string, err error) error {
	text := "cannot be read; see that it is a file and that the gateway's user may read it"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = "there is no such file; give the path of the configuration file"
	case tooManyFiles(err):
		text = "cannot be read, because too many files are open; " + moreFiles
	}
	return &Error{Problems: []Problem{{File: path, Text: text}}, cause: err}
}

// filesReadOnce are those of a verifier that are read when it is made.
func filesReadOnce(v *configv1.Verifier) []string {
	var files []string
	keys := func(k *configv1.Keys) { files = append(files, k.GetCaFile(), k.GetFile()) }
	switch kind := v.GetKind().(type) {
	case *configv1.Verifier_Verifytoken:
		files = append(files, kind.Verifytoken.GetCaFile())
	case *configv1.Verifier_Introspection:
		files = append(files, kind.Introspection.GetCaFile())
		keys(kind.Introspection.GetSigned().GetKeys())
	case *configv1.Verifier_Jwt:
		keys(kind.Jwt.GetKeys())
	}
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// filesOf are those that a configuration names, save for the certificates of
// listeners, which look after themselves.
func filesOf(c *configv1.Config) []string {
	var files []string
	for _, v := range c.GetVerifiers() {
		files = append(files, filesReadOnce(v)...)
		client := v.GetIntrospection().GetClient()
		files = append(files, secretFile(client.GetSecret()), secretFile(client.GetPrivateKey()))
	}
	for _, e := range entries(c.GetListeners()) {
		if l, ok := e.fields.(*configv1.AuthRequest); ok {
			files = append(files, secretFile(l.GetTrust().GetSecret()))
		}
	}
	files = append(files, secretFile(c.GetFingerprint().GetKey()))
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// secretFile is where a secret stands; "" if it is no file.
func secretFile(s *configv1.Secret) string {
	if folder, set := os.LookupEnv(credentialsVariable); set && folder != "" && s.GetCredential() != "" {
		return filepath.Join(folder, s.GetCredential())
	}
	return s.GetFile()
}

// digestOf is another one as soon as one of the files that a configuration names is.
func digestOf(c *configv1.Config) [sha256.Size]byte {
	h := sha256.New()
	digestFiles(h, filesOf(c))
	return [sha256.Size]byte(h.Sum(nil))
}

func digestFiles(h hash.Hash, files []string) {
	for _, file := range files {
		text, err := readBounded(file, maxFileBytes)
		if err != nil {
			text = []byte(err.Error())
		}
		for _, part := range [][]byte{[]byte(file), text} {
			_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a hash takes everything
			_, _ = h.Write(part)
		}
	}
}
