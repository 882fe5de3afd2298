package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/conclave-vault/conclave/transport/kind"
)

// maxAnswer bounds what a prompt reads; passphrases and PINs are far shorter.
const maxAnswer = 1024

// errInterrupted: the user pressed Ctrl-C or Ctrl-D at a prompt.
var errInterrupted = errors.New("interrupted")

// Prompt asks on the terminal, without echo, even if stdin and stderr are redirected. Without a terminal it is refused: a
// secret is never read from a pipe by accident. The caller wipes the answer.
//
// The terminal is put into raw mode, so that Ctrl-C comes as a character: as a signal it would cancel the program's context,
// which does not end a read, and leave the terminal without echo.
func (e *Env) Prompt(question string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, badArgument("there is no terminal to ask on: "+question, "give a file or a file descriptor instead (see --help)")
	}
	defer tty.Close()
	before, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return nil, fmt.Errorf("preparing the terminal: %w", err)
	}
	_, err = fmt.Fprintf(tty, "%s: ", printable(question))
	var answer []byte
	if err == nil {
		answer, err = readHidden(tty)
	}
	_, _ = io.WriteString(tty, "\r\n") // nothing depends on the line break
	if err = errors.Join(err, term.Restore(int(tty.Fd()), before)); err != nil {
		clear(answer)
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return answer, nil
}

// readHidden reads a line character by character, as a terminal in raw mode gives it, into memory that is never copied.
func readHidden(r io.Reader) ([]byte, error) {
	answer := make([]byte, 0, maxAnswer)
	var key [1]byte
	for {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			clear(answer)
			return nil, err
		}
		switch k := key[0]; {
		case k == '\r' || k == '\n':
			return answer, nil
		case k == 3 || k == 4: // Ctrl-C, Ctrl-D
			clear(answer)
			return nil, errInterrupted
		case k == 8 || k == 127: // backspace, delete
			answer = answer[:max(0, len(answer)-1)]
		case k == 21: // Ctrl-U starts again
			answer = answer[:0]
		case k < ' ':
		case len(answer) == maxAnswer:
			clear(answer)
			return nil, kind.New(kind.InvalidArgument, fmt.Sprintf("more than %d bytes", maxAnswer), nil)
		default:
			answer = append(answer, k)
		}
	}
}
