package custody

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Env is what the command line gives these commands.
type Env interface {
	// Dial returns a connection to the cluster, as the flags and the environment say.
	Dial(ctx context.Context) (grpc.ClientConnInterface, error)
	// Print writes v to stdout in the format that the user chose.
	Print(cmd *cobra.Command, v any) error
	// Stderr is where progress and warnings go.
	Stderr() io.Writer
	// Prompt asks on the terminal without echo. The caller wipes the answer.
	Prompt(question string) ([]byte, error)
}

// usageError is a mistake in flags or arguments. As a gRPC status it takes the same way to the exit code as a server's refusal.
type usageError string

func (e usageError) Error() string { return string(e) }

// GRPCStatus makes it INVALID_ARGUMENT.
func (e usageError) GRPCStatus() *status.Status { return status.New(codes.InvalidArgument, string(e)) }

func badUsage(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }
