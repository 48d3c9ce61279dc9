package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// damage turns bits in the tables of a log's directory, as a disk might.
func damage(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err == nil && len(files) == 0 {
		err = errors.New("there are no tables")
	}
	for _, name := range files {
		b, rerr := os.ReadFile(name)
		if rerr != nil {
			return rerr
		}
		for k := len(b) / 4; k < len(b)/2; k++ {
			b[k] ^= 0xff
		}
		err = errors.Join(err, os.WriteFile(name, b, 0o600))
	}
	if err != nil {
		return fmt.Errorf("damage %s: %w", dir, err)
	}
	return nil
}
