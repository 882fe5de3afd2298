package cli

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
)

// maxPage is the largest page that the cluster gives.
const maxPage = 1000

// paging are the flags of a list. Without any, the whole list is printed, in both formats: a script that forgot to page must
// not take the first page for everything.
type paging struct {
	size  int32
	token string
	limit int
}

func (p *paging) flags(cmd *cobra.Command) {
	cmd.Flags().Int32Var(&p.size, "page-size", 0, "print one page of at most this many (1 to 1000)")
	cmd.Flags().StringVar(&p.token, "page-token", "", "print the page that follows: next_page_token of the page before")
	cmd.Flags().IntVar(&p.limit, "limit", 0, "print at most this many, over all pages")
}

func (p *paging) check() error {
	if p.size < 0 || p.size > maxPage || p.limit < 0 {
		return badArgument("--page-size must be 1 to 1000 and --limit positive", "")
	}
	return nil
}

// onePage reports whether the user pages by hand.
func (p *paging) onePage() bool { return p.size > 0 || p.token != "" }

// next is the size of the next page after got items. It never asks for more than may be printed, so that the token that comes
// with the last page continues exactly behind the last item.
func (p *paging) next(got int) int32 {
	size := p.size
	if size == 0 {
		size = maxPage
	}
	if p.limit > 0 {
		size = min(size, int32(min(p.limit-got, maxPage)))
	}
	return size
}

// list is one kind of list: how to ask for a page and how to show it.
type list[P any, Q client.Query[P], R client.List] struct {
	ask     func(context.Context, Q, ...grpc.CallOption) (R, error)
	query   Q
	page    func(query Q, size int32, token string)
	columns []column
}

// printList prints a list as the flags say: a table page by page as they come, JSON as one object.
func printList[P any, Q client.Query[P], R client.List](cmd *cobra.Command, e *Env, p *paging, l list[P, Q, R]) error {
	if err := p.check(); err != nil {
		return err
	}
	items, token := []any{}, ""
	t := newTable(l.columns)
	got := 0
	l.page(l.query, p.next(0), p.token)
	next := func(q Q, token string) { l.page(q, p.next(got), token) }
	for reply, err := range client.Pages(cmd.Context(), l.ask, l.query, next) {
		if err != nil {
			return err
		}
		page := itemsOf(reply)
		got += len(page)
		token = reply.GetNextPageToken()
		if e.structured() {
			items = append(items, page...)
		} else if err := e.write(t.add(objects(page))); err != nil {
			return err
		}
		if p.onePage() || p.limit > 0 && got >= p.limit {
			break
		}
	}
	if e.structured() {
		return e.Print(cmd, object{{"items", items}, {"next_page_token", token}})
	}
	if token != "" {
		e.say("there is more: --page-token %s", token)
	}
	return nil
}

func itemsOf(reply any) []any {
	o := message(reply.(proto.Message).ProtoReflect())
	items, _ := o.get("items").([]any)
	return items
}

func objects(items []any) []object {
	rows := make([]object, len(items))
	for i, item := range items {
		rows[i], _ = item.(object)
	}
	return rows
}
