package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/transport/kind"
)

// healthTimeout bounds the whole question: a node that needs longer is not well.
const healthTimeout = 3 * time.Second

// healthQuestions are what --service takes, and the services that must be well, in the order in which they explain a no.
var healthQuestions = map[string][]string{
	"node":     {healthNode},
	"unsealed": {healthNode, healthUnsealed},
	"serving":  {healthNode, healthUnsealed, healthServing},
}

// Printer writes a command's result in the form that the user chose.
type Printer interface {
	Print(cmd *cobra.Command, v any) error
}

// HealthReport is what `conclave health` prints when all is well.
type HealthReport struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	Status  string `json:"status"`
}

// HealthCommand is `conclave health`.
func HealthCommand(out Printer) *cobra.Command {
	var file, service string
	cmd := &cobra.Command{
		Use:   "health --config node.yaml",
		Short: "Ask the node on this machine how it does",
		Long: `Ask the server that runs with this configuration file on this machine whether it is well, over a unix socket in its data directory.

  --service node      it is up and takes part in the consensus; a sealed node does (the default: what a supervisor wants to know)
  --service unsealed  and custodians have unsealed it; if not: exit code 7
  --service serving   and it holds a serving lease, so that it uses keys (what a load balancer wants to know)

Exit codes: 0 yes, 6 no or no answer, 7 sealed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			needed, known := healthQuestions[service]
			if !known {
				there := strings.Join(slices.Sorted(maps.Keys(healthQuestions)), ", ")
				return kind.New(kind.InvalidArgument, fmt.Sprintf("unknown service %q; there are: %s", service, there), nil)
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			if err := askHealth(ctx, cfg, needed); err != nil {
				return err
			}
			return out.Print(cmd, HealthReport{Node: cfg.Node, Service: service, Status: healthpb.HealthCheckResponse_SERVING.String()})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (YAML)")
	cmd.Flags().StringVar(&service, "service", "node", "what to ask for: node, unsealed, serving")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// askHealth says which of the services is the first that is not well; nil if all are.
func askHealth(ctx context.Context, cfg config.Config, services []string) error {
	conn, err := dialHealth(ctx, cfg.DataDir)
	if err != nil {
		return kind.New(kind.Unavailable, fmt.Sprintf("node %s does not run here: %v", cfg.Node, err),
			map[string]string{kind.MetaTry: "conclave server --config FILE   (or wait until it has started, and joined)"})
	}
	defer conn.Close() // gRPC closes it too, if it came to use it
	client, err := grpc.NewClient("passthrough:///"+healthFile, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, s := range services {
		reply, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: s})
		if err != nil {
			return kind.New(kind.Unavailable, fmt.Sprintf("node %s does not answer: %v", cfg.Node, kind.Received(err)), nil)
		}
		if reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return unwell(cfg.Node, s)
		}
	}
	return nil
}

func unwell(node, service string) error {
	switch service {
	case healthUnsealed:
		return kind.New(kind.Sealed, "node "+node+" is sealed", nil)
	case healthServing:
		why := "node " + node + " holds no serving lease: it does not reach the cluster's leader, or there is none"
		return kind.New(kind.Unavailable, why, nil)
	}
	return kind.New(kind.Unavailable, "node "+node+" is up, but its consensus does not answer; its log says why", nil)
}
