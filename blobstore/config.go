package blobstore

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Config says which store to use and how.
//
// For Azure at most one of the three files is named. Without one the
// environment counts: AZURE_STORAGE_CONNECTION_STRING, else AZURE_STORAGE_KEY
// (with AZURE_STORAGE_ACCOUNT), else AZURE_STORAGE_SAS_TOKEN. Without these
// the identity of the machine or the user does: managed identity, workload
// identity, az login.
type Config struct {
	// URL is file:DIR, or https://ACCOUNT.blob.core.windows.net/CONTAINER,
	// or http://HOST:PORT/ACCOUNT/CONTAINER for an emulator, the latter two
	// optionally with /PREFIX.
	URL string `yaml:"url"`

	ConnectionStringFile string `yaml:"connection_string_file"`
	SASTokenFile         string `yaml:"sas_token_file"`
	AccountKeyFile       string `yaml:"account_key_file"`

	// Timeout bounds a read, all its tries included.
	Timeout time.Duration `yaml:"timeout"`

	// TryTimeout bounds one try. Requests with large bodies get more.
	TryTimeout time.Duration `yaml:"try_timeout"`
}

const (
	defaultTimeout    = 20 * time.Second
	defaultTryTimeout = 5 * time.Second
)

// WithDefaults returns c with the unset durations filled in.
func (c Config) WithDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.TryTimeout == 0 {
		c.TryTimeout = min(defaultTryTimeout, c.Timeout)
	}
	return c
}

// Validate tells what is wrong with c, all problems at once: nil, or an error
// made with errors.Join whose parts name the keys and wrap ErrConfig. It reads
// no files.
func (c Config) Validate() error {
	var problems []error
	add := func(key, format string, args ...any) {
		problems = append(problems, &fault{ErrConfig, "blobstore." + key + ": " + fmt.Sprintf(format, args...)})
	}
	var files []string
	for _, f := range []struct{ key, path string }{
		{"connection_string_file", c.ConnectionStringFile},
		{"sas_token_file", c.SASTokenFile},
		{"account_key_file", c.AccountKeyFile},
	} {
		if f.path != "" {
			files = append(files, f.key)
		}
	}
	if len(files) > 1 {
		add(files[1], "only one of %s can be used", strings.Join(files, " and "))
	}
	if dir, ok := strings.CutPrefix(c.URL, "file:"); ok {
		if _, err := parseFileURL(dir); err != nil {
			add("url", "%v", err)
		}
		if len(files) > 0 {
			add(files[0], "a directory needs no credentials: remove it")
		}
	} else if _, err := parseAzureURL(c.URL); err != nil {
		add("url", "%v", err)
	}
	if c.Timeout < 0 {
		add("timeout", "%v is negative", c.Timeout)
	}
	if c.TryTimeout < 0 {
		add("try_timeout", "%v is negative", c.TryTimeout)
	}
	if c.Timeout > 0 && c.TryTimeout > c.Timeout {
		add("try_timeout", "%v is longer than timeout, %v", c.TryTimeout, c.Timeout)
	}
	return errors.Join(problems...)
}

// parseFileURL returns the directory of a file URL whose scheme was cut off.
func parseFileURL(rest string) (string, error) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return "", fmt.Errorf("file:%s names a host: write file:DIR", rest)
		}
		rest = after
	}
	if rest == "" {
		return "", errors.New("file: without a directory: write file:DIR")
	}
	return rest, nil
}

// location is a parsed URL of a store in Azure.
type location struct {
	endpoint  string // scheme, host and, for an emulator, account; no slash at the end
	account   string
	container string
	prefix    string // empty, or ends with a slash
	secure    bool   // https
}

func (l location) url() string {
	return strings.TrimSuffix(l.endpoint+"/"+l.container+"/"+l.prefix, "/")
}

// Azure, "Naming and referencing containers".
var containerName = regexp.MustCompile(`^(\$root|[a-z0-9](-?[a-z0-9])+)$`)

const urlForms = "write file:DIR or https://ACCOUNT.blob.core.windows.net/CONTAINER"

// parseAzureURL takes the URL of a container apart. What it complains about
// never holds what may be a secret: query, user and password are not shown.
func parseAzureURL(s string) (location, error) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return location{}, errors.New("is empty: " + urlForms)
	case err != nil:
		return location{}, errors.New("is not a URL: " + urlForms)
	case u.User != nil:
		return location{}, errors.New("holds a user name: " + urlForms + " and name a file with credentials")
	case u.RawQuery != "" || u.ForceQuery:
		return location{}, errors.New("holds a query: put a SAS token into a file named by blobstore.sas_token_file")
	case u.Scheme != "http" && u.Scheme != "https":
		return location{}, fmt.Errorf("%q is neither a directory nor a container: %s", s, urlForms)
	case u.Hostname() == "":
		return location{}, fmt.Errorf("%q has no host: %s", s, urlForms)
	case u.Fragment != "":
		return location{}, fmt.Errorf("%q holds a fragment: %s", s, urlForms)
	}
	l := location{endpoint: u.Scheme + "://" + u.Host, secure: u.Scheme == "https"}
	path := strings.Trim(u.Path, "/")
	if accountInPath(u.Hostname()) {
		l.account, path, _ = strings.Cut(path, "/")
		if l.account == "" {
			return location{}, fmt.Errorf("%q has no account: write %s://%s/ACCOUNT/CONTAINER", s, u.Scheme, u.Host)
		}
		l.endpoint += "/" + l.account
	} else {
		l.account, _, _ = strings.Cut(u.Hostname(), ".")
	}
	l.container, path, _ = strings.Cut(path, "/")
	switch {
	case l.container == "":
		return location{}, fmt.Errorf("%q has no container: write %s/CONTAINER", s, l.endpoint)
	case !containerName.MatchString(l.container) || len(l.container) > 63:
		return location{}, fmt.Errorf("%q: %q cannot be a container: 3 to 63 of a-z, 0-9 and single dashes", s, l.container)
	}
	if path != "" {
		if err := CheckName(path); err != nil {
			return location{}, fmt.Errorf("%q: prefix: %w", s, err)
		}
		l.prefix = path + "/"
	}
	return l, nil
}

// accountInPath tells whether host is an emulator's: then the account is the
// first component of the path instead of the first label of the host.
func accountInPath(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || !strings.Contains(host, ".")
}
