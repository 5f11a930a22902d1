package node

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skylun/target"
)

// putSecret writes a file with mode 0600 and returns its path.
func putSecret(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const someSecret, otherSecret = "some secret of alice", "some other secret"

// The end of a line is no part of a secret, everything else is.
func TestReadSecrets(t *testing.T) {
	for content, want := range map[string]string{
		someSecret: someSecret, someSecret + "\n": someSecret, someSecret + "\r\n": someSecret,
		someSecret + " \n": someSecret + " ", "\n" + someSecret + "\n\n": "\n" + someSecret + "\n",
		strings.Repeat("x", 255) + "\r\n": strings.Repeat("x", 255),
	} {
		cfg := testConfig(t)
		cfg.Targets[0].Chap = ChapConfig{User: "alice", SecretFile: putSecret(t, content), Algorithms: []string{"sha-256"}}
		c, err := readSecrets(&cfg, quiet)
		if err != nil {
			t.Errorf("%q: %v", content, err)
			continue
		}
		s, err := target.NewSecret([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		chap := c.targets[cfg.Targets[0].IQN]
		if len(chap.Users) != 1 || chap.Users[0].Name != "alice" || !chap.Users[0].Secret.Equal(s) || !chap.Users[0].MutualSecret.Empty() {
			t.Errorf("%q: %+v", content, chap)
		}
		if len(chap.Algorithms) != 1 || chap.Algorithms[0] != target.SHA256 || c.discovery != nil {
			t.Errorf("%q: algorithms %v, discovery %v", content, chap.Algorithms, c.discovery)
		}
	}
}

// What is wrong with a secret is said with the key and the file, and without
// the secret.
func TestBadSecrets(t *testing.T) {
	for _, c := range []struct {
		name string
		chap ChapConfig
		want []string // in one line each
	}{
		{"no file", ChapConfig{User: "u", SecretFile: "/nowhere/s"}, []string{"targets[0].chap.secret_file: open /nowhere/s: no such file"}},
		{"short", ChapConfig{User: "u", SecretFile: putSecret(t, "elevenbytes\n")}, []string{"targets[0].chap.secret_file: the secret in ", "/secret has 11 bytes; a secret has 12 to 255"}},
		{"long", ChapConfig{User: "u", SecretFile: putSecret(t, strings.Repeat("x", 300))}, []string{"bytes; a secret has 12 to 255"}},
		{"empty", ChapConfig{User: "u", SecretFile: putSecret(t, "\n")}, []string{"/secret is empty"}},
		{"directory", ChapConfig{User: "u", SecretFile: t.TempDir()}, []string{"targets[0].chap.secret_file: ", "is a directory"}},
		{"the same both ways", ChapConfig{User: "u", SecretFile: putSecret(t, someSecret), MutualUser: "m", MutualSecretFile: putSecret(t, someSecret+"\n")},
			[]string{"targets[0].chap.mutual_secret_file: holds the same secret as targets[0].chap.secret_file"}},
		{"another user's secret", ChapConfig{Users: []ChapUser{
			{User: "u", SecretFile: putSecret(t, someSecret)},
			{User: "v", SecretFile: putSecret(t, "yet another one"), MutualUser: "m", MutualSecretFile: putSecret(t, someSecret)},
		}}, []string{"targets[0].chap.users[1].mutual_secret_file: holds the same secret as targets[0].chap.users[0].secret_file"}},
		{"discovery's secret", ChapConfig{User: "u", SecretFile: putSecret(t, someSecret), MutualUser: "m", MutualSecretFile: putSecret(t, otherSecret)},
			[]string{"targets[0].chap.mutual_secret_file: holds the same secret as discovery.chap.secret_file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Targets[0].Chap = c.chap
			cfg.Discovery.Chap = ChapConfig{User: "finder", SecretFile: putSecret(t, otherSecret)}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			_, err := Start(t.Context(), cfg, quiet)
			if !errors.As(err, new(Problems)) {
				t.Fatalf("%v is no problem of the configuration", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v; want %q", err, want)
				}
			}
			for _, s := range []string{someSecret, otherSecret, "elevenbytes", "xxxx"} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("%v shows a secret", err)
				}
			}
			if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the data directory was made: %v", err)
			}
		})
	}
}

// A file that others can read is used, with a warning.
func TestSecretMode(t *testing.T) {
	for mode, warns := range map[os.FileMode]bool{0o400: false, 0o600: false, 0o640: false, 0o644: true, 0o660: true} {
		var log bytes.Buffer
		cfg := testConfig(t)
		file := putSecret(t, someSecret)
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		cfg.Targets[0].Chap = ChapConfig{User: "u", SecretFile: file, Users: []ChapUser{{User: "v", SecretFile: file}}}
		if _, err := readSecrets(&cfg, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(log.String(), "\n"); lines != map[bool]int{true: 1}[warns] || warns && !strings.Contains(log.String(), file) {
			t.Errorf("mode %04o: %s", mode, log.String())
		}
		if strings.Contains(log.String(), someSecret) {
			t.Errorf("the secret is in the log: %s", log.String())
		}
	}
}
