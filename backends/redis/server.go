package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	client "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// connect makes a client; it doesn't dial. The client repeats nothing by itself, see again.
func (o *Options) connect() client.UniversalClient {
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch o.Mode {
	case Sentinel:
		return client.NewFailoverClient(&client.FailoverOptions{
			MasterName: o.Master, SentinelAddrs: o.Addrs, SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
			Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLS,
			Protocol: 2, MaxRetries: -1, DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
			ContextTimeoutEnabled: true, DisableIdentity: true, DialerRetries: 1,
		})
	case Cluster:
		return client.NewClusterClient(&client.ClusterOptions{
			Addrs: o.Addrs, Username: o.Username, Password: o.Password, TLSConfig: o.TLS,
			Protocol: 2, MaxRetries: -1, DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
			ContextTimeoutEnabled: true, DisableIdentity: true, DialerRetries: 1, MaintNotificationsConfig: quiet,
		})
	}
	return client.NewClient(&client.Options{
		Addr: o.Addrs[0], Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLS,
		Protocol: 2, MaxRetries: -1, DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
		ContextTimeoutEnabled: true, DisableIdentity: true, DialerRetries: 1, MaintNotificationsConfig: quiet,
	})
}

// check asks the server, or every master of a cluster, for its settings.
func (s *Store) check(ctx context.Context, mode Mode) error {
	var mu sync.Mutex
	var refused []error
	ask := func(ctx context.Context, c *client.Client) error {
		info := map[string]string{}
		for _, section := range []string{"server", "replication", "memory", "persistence", "cluster"} {
			text, err := c.Info(ctx, section).Result()
			if err != nil {
				return err
			}
			addInfo(info, text)
		}
		if err := checkInfo(info, mode); err != nil {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, fmt.Errorf("%s: %w", c.Options().Addr, err))
		}
		return nil
	}
	err := s.again(ctx, func() error {
		refused = nil
		if cluster, ok := s.client.(*client.ClusterClient); ok {
			return cluster.ForEachMaster(ctx, ask)
		}
		return ask(ctx, s.client.(*client.Client))
	})
	if client.HasErrorPrefix(err, "NOPERM") {
		return fmt.Errorf("redis: the settings can't be checked: %w; allow INFO, or say check=off after you have looked at maxmemory-policy yourself", err)
	}
	return errors.Join(err, errors.Join(refused...))
}

// addInfo reads the lines of an answer to INFO.
func addInfo(info map[string]string, text string) {
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			info[name] = value
		}
	}
}

// checkInfo refuses a server whose settings lose rows silently, or that can't be written to, and
// names the setting.
func checkInfo(info map[string]string, mode Mode) error {
	version := info["redis_version"]
	switch {
	case version == "":
		return errors.New("redis: INFO doesn't tell the server's version")
	case !since(version, 6, 2):
		return fmt.Errorf("redis: the server is version %s; 6.2 is the least", version)
	case info["loading"] == "1":
		return errors.New("redis: the server is still loading its data (loading:1); try again when it is through")
	case info["role"] != "master":
		return fmt.Errorf("redis: the server is a read-only replica (role:%s) of %s; name the master, or use redis+sentinel", info["role"], info["master_host"])
	case info["maxmemory_policy"] != "noeviction":
		return fmt.Errorf("redis: maxmemory-policy is %s: the server would remove rows when memory is short, and nobody would notice; set it to noeviction", info["maxmemory_policy"])
	case mode != Cluster && info["cluster_enabled"] == "1":
		return errors.New("redis: the server is a node of a cluster (cluster-enabled yes); use redis+cluster")
	case mode == Cluster && info["cluster_enabled"] != "1":
		return errors.New("redis: the server is not a node of a cluster (cluster-enabled no); use redis")
	}
	return nil
}

// since says whether a version is at least major.minor. One that can't be read is not.
func since(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// probe tries every command that the scripts use, so that a user who lacks the right to one is
// found now and not in the middle of a batch.
func (s *Store) probe(ctx context.Context) error {
	base := s.names.base(-1) + "probe"
	reply, err := s.run(ctx, probeScript, []string{base + "h", base + "z"})
	if err != nil {
		return fmt.Errorf("try the server: %w", err)
	}
	if len(reply) > 0 {
		return fmt.Errorf("redis: the server refuses a command that is needed: %s", text(reply[0]))
	}
	return nil
}
