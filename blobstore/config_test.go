package blobstore

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	const good = "https://account.blob.core.windows.net/images"
	for _, c := range []struct {
		cfg  Config
		says []string // one problem each; none: it is good
	}{
		{Config{URL: "file:data"}, nil},
		{Config{URL: "file:/data"}, nil},
		{Config{URL: "file:///data"}, nil},
		{Config{URL: good}, nil},
		{Config{URL: good + "/"}, nil},
		{Config{URL: good + "/prefix/deeper"}, nil},
		{Config{URL: "http://127.0.0.1:10000/devstoreaccount1/images"}, nil},
		{Config{URL: "http://azurite:10000/devstoreaccount1/images"}, nil},
		{Config{URL: "https://account.blob.core.windows.net/$root"}, nil},
		{Config{URL: good, AccountKeyFile: "key", Timeout: time.Minute, TryTimeout: time.Second}, nil},
		{Config{}, []string{"url: is empty: write file:DIR or https://"}},
		{Config{URL: "file:"}, []string{"url: file: without a directory"}},
		{Config{URL: "file://host/dir"}, []string{"names a host"}},
		{Config{URL: "data/blobs"}, []string{"neither a directory nor a container"}},
		{Config{URL: "s3://bucket/x"}, []string{"neither a directory nor a container"}},
		{Config{URL: "https://account.blob.core.windows.net"}, []string{"has no container: write https://account.blob.core.windows.net/CONTAINER"}},
		{Config{URL: "http://127.0.0.1:10000"}, []string{"has no account"}},
		{Config{URL: "http://127.0.0.1:10000/devstoreaccount1"}, []string{"has no container"}},
		{Config{URL: "https:///images"}, []string{"has no host"}},
		{Config{URL: good + "?sv=1&sig=SECRET"}, []string{"SAS token into a file"}},
		{Config{URL: "https://user:SECRET@account.blob.core.windows.net/images"}, []string{"user name"}},
		{Config{URL: "https://account.blob.core.windows.net:SECRET/x"}, []string{"is not a URL"}},
		{Config{URL: "https://account.blob.core.windows.net/Images"}, []string{`"Images" cannot be a container`}},
		{Config{URL: "https://account.blob.core.windows.net/a--b"}, []string{"cannot be a container"}},
		{Config{URL: good + "/.hidden"}, []string{"prefix"}},
		{Config{URL: good, AccountKeyFile: "a", SASTokenFile: "b"}, []string{"only one of"}},
		{Config{URL: "file:data", SASTokenFile: "b"}, []string{"needs no credentials"}},
		{Config{URL: good, Timeout: -1, TryTimeout: -1}, []string{"timeout", "try_timeout"}},
		{Config{URL: good, Timeout: time.Second, TryTimeout: time.Minute}, []string{"try_timeout: 1m0s is longer"}},
		{Config{URL: "x", Timeout: -1}, []string{"url", "timeout"}},
	} {
		err := c.cfg.Validate()
		var problems []error
		if j, ok := err.(interface{ Unwrap() []error }); ok {
			problems = j.Unwrap()
		}
		if len(problems) != len(c.says) {
			t.Errorf("%+v: %v, want %d problems", c.cfg, err, len(c.says))
			continue
		}
		for i, says := range c.says {
			p := problems[i]
			if !errors.Is(p, ErrConfig) || !strings.HasPrefix(p.Error(), "blobstore.") || !strings.Contains(p.Error(), says) || strings.Contains(p.Error(), "SECRET") || strings.Contains(p.Error(), "\n") {
				t.Errorf("%+v: %v, want ErrConfig with %q", c.cfg, p, says)
			}
		}
	}
}

func TestParseAzureURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		want location
		back string
	}{
		{"https://acc.blob.core.windows.net/images", location{"https://acc.blob.core.windows.net", "acc", "images", "", true}, ""},
		{"https://acc.blob.core.windows.net/images/a/b/", location{"https://acc.blob.core.windows.net", "acc", "images", "a/b/", true}, "https://acc.blob.core.windows.net/images/a/b"},
		{"http://127.0.0.1:10077/dev/images/p", location{"http://127.0.0.1:10077/dev", "dev", "images", "p/", false}, ""},
		{"http://[::1]:10077/dev/images", location{"http://[::1]:10077/dev", "dev", "images", "", false}, ""},
		{"http://localhost/dev/images", location{"http://localhost/dev", "dev", "images", "", false}, ""},
	} {
		got, err := parseAzureURL(c.url)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.url, got, err, c.want)
		}
		if c.back == "" {
			c.back = c.url
		}
		if got.url() != c.back {
			t.Errorf("%s: url() = %s, want %s", c.url, got.url(), c.back)
		}
	}
}

func TestFindCredential(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, sas := file("key", "a2V5\n"), file("sas", "?sv=1&sig=abc%3D\n")
	conn := file("conn", "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;EndpointSuffix=core.windows.net\n")
	connSAS := file("connsas", "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=abc%3D")
	const url, plain = "https://acc.blob.core.windows.net/images", "http://127.0.0.1:1/acc/images"
	for _, c := range []struct {
		what     string
		cfg      Config
		env      map[string]string
		key, sas string
		says     string
	}{
		{what: "key file", cfg: Config{URL: url, AccountKeyFile: key}, key: "a2V5"},
		{what: "SAS file", cfg: Config{URL: url, SASTokenFile: sas}, sas: "sv=1&sig=abc%3D"},
		{what: "connection string with a key", cfg: Config{URL: url, ConnectionStringFile: conn}, key: "a2V5=="},
		{what: "connection string with a SAS token", cfg: Config{URL: url, ConnectionStringFile: connSAS}, sas: "sv=1&sig=abc%3D"},
		{what: "file before environment", cfg: Config{URL: url, AccountKeyFile: key}, env: map[string]string{"AZURE_STORAGE_KEY": "b3RoZXI="}, key: "a2V5"},
		{what: "environment: connection string", cfg: Config{URL: url}, env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acc;AccountKey=eA==", "AZURE_STORAGE_KEY": "b3RoZXI="}, key: "eA=="},
		{what: "environment: key", cfg: Config{URL: url}, env: map[string]string{"AZURE_STORAGE_KEY": "eA==", "AZURE_STORAGE_ACCOUNT": "acc"}, key: "eA=="},
		{what: "environment: key alone", cfg: Config{URL: url}, env: map[string]string{"AZURE_STORAGE_KEY": "eA=="}, key: "eA=="},
		{what: "environment: SAS token", cfg: Config{URL: url}, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": "?sig=x"}, sas: "sig=x"},
		{what: "identity", cfg: Config{URL: url}},
		{what: "emulator", cfg: Config{URL: "http://127.0.0.1:1/devstoreaccount1/images"}, env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"}, key: emulatorKey},
		{what: "identity over http", cfg: Config{URL: plain}, says: "https only"},
		{what: "key of another account", cfg: Config{URL: url}, env: map[string]string{"AZURE_STORAGE_KEY": "U0VDUkVU", "AZURE_STORAGE_ACCOUNT": "other"}, says: `"other"`},
		{what: "connection string of another account", cfg: Config{URL: "https://x.blob.core.windows.net/images", ConnectionStringFile: conn}, says: `account "acc"`},
		{what: "no connection string", cfg: Config{URL: url, ConnectionStringFile: file("nonsense", "U0VDUkVU")}, says: "is no connection string"},
		{what: "no SAS token", cfg: Config{URL: url, SASTokenFile: file("nosas", "U0VDUkVU")}, says: "no sig="},
		{what: "no file", cfg: Config{URL: url, AccountKeyFile: filepath.Join(dir, "none")}, says: "no such file"},
		{what: "empty file", cfg: Config{URL: url, AccountKeyFile: file("empty", "\n")}, says: "is empty"},
		{what: "two lines", cfg: Config{URL: url, AccountKeyFile: file("two", "U0VDUkVU\nU0VDUkVU")}, says: "more than one line"},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, name := range []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"} {
				t.Setenv(name, c.env[name])
			}
			loc, err := parseAzureURL(c.cfg.URL)
			if err != nil {
				t.Fatal(err)
			}
			got, err := findCredential(c.cfg, loc, slog.New(slog.DiscardHandler))
			if c.says != "" {
				if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "U0VDUkVU") {
					t.Errorf("%v, want ErrConfig with %q", err, c.says)
				}
				return
			}
			if err != nil || got.key.reveal() != c.key || got.sas.reveal() != c.sas {
				t.Errorf("key %q, SAS token %q, %v, want %q, %q", got.key.reveal(), got.sas.reveal(), err, c.key, c.sas)
			}
		})
	}
	// A key that is none is noticed when the client is made.
	_, err := Open(t.Context(), Config{URL: url, AccountKeyFile: file("badkey", "SE-CRET")}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "not base64") || strings.Contains(err.Error(), "SE-CRET") {
		t.Errorf("Open with a bad key: %v", err)
	}
}
