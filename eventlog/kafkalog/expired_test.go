package kafkalog

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

// TestOwnerAfterBrokersForgotIt: what the brokers answer to an owner that was idle for longer than
// transactional.id.expiration.ms (a week), or whose process stood still for longer than its
// transaction may last, finishes it. Nothing of its transaction is visible, and the next owner
// goes on.
func TestOwnerAfterBrokersForgotIt(t *testing.T) {
	for _, answer := range []struct {
		err    *kerr.Error
		fenced bool
		key    kmsg.Key
	}{
		{kerr.InvalidProducerIDMapping, false, kmsg.Produce},
		{kerr.InvalidProducerIDMapping, false, kmsg.EndTxn},
		{kerr.UnknownProducerID, false, kmsg.Produce},
		{kerr.OutOfOrderSequenceNumber, false, kmsg.Produce},
		{kerr.InvalidProducerEpoch, true, kmsg.Produce},
		{kerr.ProducerFenced, true, kmsg.EndTxn},
		{kerr.InvalidTxnState, true, kmsg.EndTxn},
		{kerr.TransactionAbortable, false, kmsg.Produce},
		{kerr.TransactionalIDAuthorizationFailed, false, kmsg.Produce},
		{kerr.TransactionalIDAuthorizationFailed, false, kmsg.EndTxn},
	} {
		t.Run(answer.key.Name()+"/"+answer.err.Message, func(t *testing.T) {
			c := fake(t)
			l := openLog(t, strings.Join(c.ListenAddrs(), ","), newApp(), "partitions=1")
			o := own(t, l, 0)
			add(t, o, "1")
			commit(t, o)
			h := c.Fault(kfake.Fault{Keys: []kmsg.Key{answer.key}, Err: answer.err, Count: -1, TopLevel: answer.key == kmsg.EndTxn})
			_, err := o.Append(t.Context(), raw("2"), typesOf([]string{"2"}), nil)
			if err == nil {
				err = o.Commit(t.Context())
			}
			if err == nil || errors.Is(err, eventlog.ErrFenced) != answer.fenced {
				t.Errorf("it says %v; fenced should be %v", err, answer.fenced)
			}
			if _, isRefused := errors.AsType[*eventlog.RefusedError](err); isRefused {
				t.Errorf("%v is no word about a message", err)
			}
			if err := o.Commit(t.Context()); err == nil {
				t.Error("and then it commits")
			}
			h.Remove()
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			if got := barrier(t, l); !slices.Equal(got, []string{"1"}) {
				t.Errorf("events %q", got)
			}
		})
	}
}
