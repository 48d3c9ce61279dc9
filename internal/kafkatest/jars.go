package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Version is the Kafka that Start runs.
const Version = "4.4.0"

// pom names the jars. The versions are pinned: with a range Maven reads every release's
// metadata.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + Version + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>
      <scope>runtime</scope>
    </dependency>
  </dependencies>
</project>
`

// DefaultCache is where the jars are kept: dagger/kafka-VERSION in the user's cache.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(dir, "dagger", "kafka-"+Version), nil
}

// Jars is the directory with Kafka's jars. What is not in the cache yet, Maven gets.
func Jars(ctx context.Context, cache string) (string, error) {
	if cache == "" {
		var err error
		if cache, err = DefaultCache(); err != nil {
			return "", err
		}
	}
	libs := filepath.Join(cache, "libs")
	if _, err := os.Stat(libs); err == nil {
		return libs, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	// Beside the place where they belong, and moved there when complete: two processes may
	// do this at once, and any may be killed.
	work, err := os.MkdirTemp(cache, "getting-")
	if err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o644); err != nil {
		return "", fmt.Errorf("write the pom: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(work, "libs"))
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("get Kafka's jars with Maven: %w: %s", err, tail(out))
	}
	if err := os.Rename(filepath.Join(work, "libs"), libs); err != nil {
		if _, there := os.Stat(libs); !errors.Is(there, os.ErrNotExist) {
			return libs, nil // another process was faster
		}
		return "", fmt.Errorf("keep the jars: %w", err)
	}
	return libs, nil
}
