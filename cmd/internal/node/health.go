package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/hsm"
)

// Services of a node's health, in the standard protocol grpc.health.v1.
const (
	// healthNode: the process is up and its consensus turns. A sealed node is healthy, for it replicates and votes; so is one that
	// is cut off, which no restart would help.
	healthNode = ""
	// healthUnsealed: custodians have unsealed it. It may lack the lease.
	healthUnsealed = "conclave.unsealed"
	// healthServing: it is unsealed and holds a serving lease, so it uses keys.
	healthServing = "conclave.serving"
)

var healthServices = []string{healthNode, healthUnsealed, healthServing}

// Limits of the health socket. Whoever asks is on this machine and wants to know it quickly.
const (
	aliveTimeout      = time.Second // the consensus loop answers in microseconds
	maxHealthMessage  = 4 << 10
	maxHealthStreams  = 16
	healthIdleTimeout = 10 * time.Second
)

// health answers how this node does, to its own user on this machine.
type health struct {
	healthpb.UnimplementedHealthServer
	listener net.Listener
	rpc      *grpc.Server
	alive    func(context.Context) error
	ready    func() error
	log      *slog.Logger
}

// newHealth makes the server; it starts nothing. alive asks the consensus, ready says why keys cannot be used.
func newHealth(l net.Listener, alive func(context.Context) error, ready func() error, log *slog.Logger) *health {
	h := &health{listener: l, alive: alive, ready: ready, log: log}
	h.rpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxHealthMessage), grpc.MaxConcurrentStreams(maxHealthStreams), grpc.ConnectionTimeout(healthIdleTimeout),
		grpc.WaitForHandlers(true), // they ask the consensus, which ends after this server
	)
	healthpb.RegisterHealthServer(h.rpc, h)
	return h
}

// Run serves until ctx ends.
func (h *health) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, h.rpc.Stop)
	defer stop()
	err := h.rpc.Serve(h.listener)
	if ctx.Err() != nil {
		h.rpc.Stop() // Serve returns early; this waits for handlers
		return nil
	}
	return fmt.Errorf("serving health: %w", err)
}

// Check answers for one service. NOT_FOUND for one that does not exist, as the protocol demands.
func (h *health) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	var well bool
	switch req.GetService() {
	case healthNode:
		well = h.turns(ctx)
	case healthUnsealed:
		well = !errors.Is(h.ready(), hsm.ErrSealed)
	case healthServing:
		well = h.ready() == nil
	default:
		return nil, status.Errorf(codes.NotFound, "unknown service %q; there are: %q", req.GetService(), healthServices)
	}
	if well {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
}

// List answers for all services at once.
func (h *health) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	all := map[string]*healthpb.HealthCheckResponse{}
	for _, s := range healthServices {
		answer, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: s})
		if err != nil {
			return nil, err
		}
		all[s] = answer
	}
	return &healthpb.HealthListResponse{Statuses: all}, nil
}

func (h *health) turns(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	err := h.alive(ctx)
	if err != nil {
		h.log.Warn("the consensus does not answer", "err", err)
	}
	return err == nil
}
