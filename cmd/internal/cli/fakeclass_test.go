package cli_test

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// builtIn is the class that every catalog has.
func builtIn() *vaultpb.Class {
	return &vaultpb.Class{
		Name: "standard", Description: "what most keys are", Lease: "leased", UsageLog: "buffered", Export: true, BuiltIn: true,
		MinDestroyWait: durationpb.New(7 * 24 * time.Hour), RotateEvery: durationpb.New(365 * 24 * time.Hour),
	}
}

func (c *catalog) class(name string) (*vaultpb.Class, error) {
	if name == "standard" {
		return builtIn(), nil
	}
	if class, ok := c.classes[name]; ok {
		return proto.CloneOf(class), nil
	}
	return nil, kind.New(kind.NotFound, "there is no class "+name, nil)
}

func (n *node) GetClass(_ context.Context, r *vaultpb.GetClassRequest) (*vaultpb.ClassReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := n.class(r.GetName())
	return &vaultpb.ClassReply{Class: c, Index: n.index}, err
}

func (n *node) ListClasses(context.Context, *vaultpb.ListClassesRequest) (*vaultpb.ListClassesReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reply := &vaultpb.ListClassesReply{Items: []*vaultpb.Class{builtIn()}, Index: n.index}
	var names []string
	for name := range n.classes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		reply.Items = append(reply.Items, proto.CloneOf(n.classes[name]))
	}
	return reply, nil
}

func (n *node) CreateClass(ctx context.Context, r *vaultpb.CreateClassRequest) (*vaultpb.ClassReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.ClassReply, error) { return n.putClass(r.GetClass()) })
}

func (n *node) UpdateClass(ctx context.Context, r *vaultpb.UpdateClassRequest) (*vaultpb.ClassReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.ClassReply, error) {
		was, err := n.class(r.GetClass().GetName())
		switch {
		case err != nil:
			return nil, err
		case r.GetRevision() != 0 && r.GetRevision() != was.GetRevision():
			return nil, kind.New(kind.Conflict, "the class has changed", nil)
		case was.GetMfa() && !r.GetClass().GetMfa():
			return nil, kind.New(kind.NeedsApproval, "mfa would be lower", nil)
		}
		return n.putClass(r.GetClass())
	})
}

func (c *catalog) putClass(class *vaultpb.Class) (*vaultpb.ClassReply, error) {
	class = proto.CloneOf(class)
	class.Revision, class.CreatedAt, class.BuiltIn = c.index, c.now(), false
	c.classes[class.GetName()] = class
	return &vaultpb.ClassReply{Class: proto.CloneOf(class), Index: c.index}, nil
}

func (n *node) DeleteClass(ctx context.Context, r *vaultpb.DeleteClassRequest) (*vaultpb.DeleteClassReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.DeleteClassReply, error) {
		if _, err := n.class(r.GetName()); err != nil {
			return nil, err
		}
		delete(n.classes, r.GetName())
		return &vaultpb.DeleteClassReply{Index: n.index}, nil
	})
}

// CheckClass finds that any key of a class that is to be for hardware only breaks.
func (n *node) CheckClass(_ context.Context, r *vaultpb.CheckClassRequest) (*vaultpb.CheckClassReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reply := &vaultpb.CheckClassReply{Raised: []string{"hardware_only"}, Index: n.index}
	if r.GetKey() != "" {
		return &vaultpb.CheckClassReply{Lowered: []string{"min_destroy_wait"}, Index: n.index}, nil
	}
	for name, k := range n.keys {
		if k.GetClass() == r.GetClass().GetName() {
			reply.Breaks = append(reply.Breaks, &vaultpb.ClassEffect{Key: name, Version: 1, Control: "hardware_only", Why: "its material was made in a token"})
		}
	}
	return reply, nil
}

func (n *node) SetKeyClass(ctx context.Context, r *vaultpb.SetKeyClassRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) {
		k, err := n.key(r.GetName())
		if err != nil {
			return nil, err
		}
		k.Class = r.GetClass()
		return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: n.index}, nil
	})
}

func (n *node) UpdateKey(ctx context.Context, r *vaultpb.UpdateKeyRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) {
		k, err := n.key(r.GetName())
		if err != nil {
			return nil, err
		}
		if r.Description != nil {
			k.Description = r.GetDescription()
		}
		if r.Owner != nil {
			k.Owner = r.GetOwner()
		}
		k.Labels = slices.DeleteFunc(k.Labels, func(l *vaultpb.Label) bool { return slices.Contains(r.GetRemoveLabels(), l.GetName()) })
		k.Labels = append(k.Labels, r.GetSetLabels()...)
		k.Links = append(k.Links, r.GetAddLinks()...)
		if r.GetNeverExportable() {
			k.Exportable = "never"
		}
		v := k.GetVersions()[k.GetPrimaryVersion()-1]
		if r.GetDeactivateAt() != nil || r.GetClearDeactivateAt() {
			v.DeactivateAt = r.GetDeactivateAt()
		}
		return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: n.index}, nil
	})
}
