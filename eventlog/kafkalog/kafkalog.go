// Package kafkalog is the event log on Apache Kafka (4.0 or newer, with transaction.version
// 2). Linking it makes the scheme kafka known to eventlog.Open:
//
//	kafka://host:9092,host2:9092/app?partitions=16&replication=3&client-id=orders
//	kafka://user@host:9092/app?tls=true&sasl=scram-sha-512&password-file=/run/secrets/kafka
//
// With create=false a missing topic of the application is an error (eventlog.ErrNoTopic) and is
// not created, and the count of partitions is that of the topics unless partitions says one.
//
// OpenWith takes a tls.Config or a password from elsewhere.
//
// Every owner has a transactional producer of its own (transactional id app/partition) and
// so a connection of its own; so has every reader, publisher and member. Peeks share one.
package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/godagger/dagger/eventlog"
)

func init() { eventlog.Register("kafka", Open) }

// openTimeout is how long Open may take when its context allows more.
const openTimeout = 30 * time.Second

type kafkaLog struct {
	cfg   config
	cl    *kgo.Client // metadata, offsets, settings
	adm   *kadm.Client
	extra []kgo.Opt // tests: another dialer

	topics topicCache
	shared sharedProducer

	mu      sync.Mutex
	closed  bool
	clients map[*kgo.Client]*closer // all that are open, cl included
	wg      sync.WaitGroup          // closings and the shared producer
}

// Open connects to the brokers that u names, makes sure that they are new enough, creates
// the application's topics that are missing and refuses topics whose settings would lose
// data (eventlog.ErrSettings) or whose partition count differs (eventlog.ErrPartitions).
// It takes at most 30 seconds.
func Open(ctx context.Context, u *url.URL) (eventlog.Log, error) {
	return open(ctx, u)
}

func open(ctx context.Context, u *url.URL, extra ...kgo.Opt) (*kafkaLog, error) {
	cfg, err := parse(u)
	if err != nil {
		return nil, err
	}
	return openConfig(ctx, cfg, extra...)
}

func openConfig(ctx context.Context, cfg config, extra ...kgo.Opt) (_ *kafkaLog, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("the brokers did not answer in time"))
	defer cancel()
	l, err := connect(ctx, cfg, extra...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := l.checkVersion(ctx); err != nil {
		return nil, err
	}
	if cfg.create {
		err = l.createAppTopics(ctx)
	} else {
		err = l.findAppTopics(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := l.checkAppTopics(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// connect makes a log that reaches its brokers, and asks no more.
func connect(ctx context.Context, cfg config, extra ...kgo.Opt) (_ *kafkaLog, err error) {
	l := &kafkaLog{cfg: cfg, extra: extra, clients: map[*kgo.Client]*closer{}}
	l.topics.log = l
	l.shared.log = l
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.cl, err = l.newClient(); err != nil {
		return nil, err
	}
	l.adm = kadm.NewClient(l.cl)
	if err := l.cl.Ping(ctx); err != nil {
		return nil, fmt.Errorf("reach a broker: %w", cfg.unreached(l.because(ctx, err)))
	}
	return l, nil
}

// checkVersion refuses brokers without transactions of version 2, with which a late record
// of a finished transaction can't slip into the next one.
func (l *kafkaLog) checkVersion(ctx context.Context) error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "dagger", "1"
	resp, err := req.RequestWith(ctx, l.cl)
	if err != nil {
		return fmt.Errorf("ask for the broker's version: %w", l.because(ctx, err))
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("ask for the broker's version: %w", err)
	}
	const want = "Kafka 4.0 or newer with the feature transaction.version=2 is needed"
	for _, f := range resp.FinalizedFeatures {
		if f.Name != "transaction.version" {
			continue
		}
		if f.MaxVersionLevel >= 2 {
			return nil
		}
		return fmt.Errorf("%s; this cluster has transaction.version=%d (kafka-features.sh upgrade --feature transaction.version=2 raises it)", want, f.MaxVersionLevel)
	}
	return fmt.Errorf("%s; this cluster has no such feature", want)
}

func (l *kafkaLog) App() string       { return l.cfg.app }
func (l *kafkaLog) Partitions() int32 { return l.cfg.partitions }
func (l *kafkaLog) URL() string       { return l.cfg.url }

// newClient makes a client that Close knows.
func (l *kafkaLog) newClient(opts ...kgo.Opt) (*kgo.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, eventlog.ErrClosed
	}
	all := append(l.cfg.clientOptions(), l.extra...)
	cl, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	l.clients[cl] = &closer{end: func() { l.drop(cl) }}
	return cl, nil
}

// closing says how the log's own Close closes a client, for one that needs more.
func (l *kafkaLog) closing(cl *kgo.Client, end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clients[cl]; c != nil {
		c.end = end
	}
}

func (l *kafkaLog) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// closer is how a client is closed: once, for the client can't stand two at a time.
type closer struct {
	once sync.Once
	end  func() // what the log's own Close does
}

// drop closes a client and waits until it is; twice is fine.
func (l *kafkaLog) drop(cl *kgo.Client) {
	l.mu.Lock()
	c := l.clients[cl]
	l.mu.Unlock()
	if c == nil {
		return // closed
	}
	c.once.Do(cl.Close)
	l.mu.Lock()
	delete(l.clients, cl)
	l.mu.Unlock()
}

// dropLater closes a client without waiting; Log.Close waits.
func (l *kafkaLog) dropLater(cl *kgo.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return // Close has it
	}
	l.wg.Go(func() { l.drop(cl) })
}

// Close ends what is still open of the log: readers, owners and members fail with ErrClosed.
func (l *kafkaLog) Close() error {
	l.mu.Lock()
	l.closed = true
	var rest []func()
	for _, c := range l.clients {
		rest = append(rest, c.end)
	}
	l.mu.Unlock()
	l.shared.close()
	var wg sync.WaitGroup
	for _, end := range rest {
		wg.Go(end)
	}
	wg.Wait()
	l.wg.Wait()
	return nil
}
