package kafkalog

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

// because is the context's cause where the context ended, ErrClosed where the log or the
// client was closed, else err, with the user's name where a login was refused.
func (l *kafkaLog) because(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, kgo.ErrClientClosed), l.isClosed():
		return eventlog.ErrClosed
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return l.cfg.unreached(err)
	}
	return err
}

// fenced tells whether a produce or a commit was refused because the partition has another
// owner. OPERATION_NOT_ATTEMPTED is the client's own word after such a refusal.
func fenced(err error) bool {
	for _, e := range []error{
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState, kerr.OperationNotAttempted,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refused tells whether the log will never take the record, whoever sends it again.
func refused(err error) bool {
	for _, e := range []error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.TopicAuthorizationFailed, kerr.PolicyViolation,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return noTopic(err)
}

func noTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) ||
		errors.Is(err, kerr.InvalidTopicException)
}
