package blobstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// credential is what proves to Azure who we are: an account key, a SAS token,
// or, with neither, the identity of the machine or the user.
type credential struct {
	account string // of the key
	key     secret
	sas     secret
	from    string // where it was found, for people
}

// The emulators' account, which is public.
const (
	emulatorAccount = "devstoreaccount1"
	emulatorKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// findCredential looks where Config says, in that order.
func findCredential(cfg Config, loc location, log *slog.Logger) (credential, error) {
	c, err := lookupCredential(cfg, loc, log)
	if err != nil {
		return credential{}, err
	}
	bad := func(format string, args ...any) (credential, error) {
		return credential{}, &fault{ErrConfig, c.from + ": " + fmt.Sprintf(format, args...)}
	}
	switch {
	case !c.key.empty() && c.account != loc.account:
		return bad("is for the account %q, blobstore.url names the account %q: use the one that belongs to the other", c.account, loc.account)
	case c.key.empty() && c.sas.empty() && !loc.secure:
		return bad("an identity is sent over https only: use an https URL, an account key or a SAS token")
	case !c.sas.empty() && !strings.Contains(c.sas.reveal(), "sig="):
		return bad("holds no SAS token: it has no sig=")
	}
	return c, nil
}

func lookupCredential(cfg Config, loc location, log *slog.Logger) (credential, error) {
	switch {
	case cfg.ConnectionStringFile != "":
		s, err := readSecret("connection_string_file", cfg.ConnectionStringFile, log)
		if err != nil {
			return credential{}, err
		}
		return parseConnectionString("blobstore.connection_string_file: "+cfg.ConnectionStringFile, s)
	case cfg.AccountKeyFile != "":
		s, err := readSecret("account_key_file", cfg.AccountKeyFile, log)
		return credential{account: loc.account, key: s, from: "blobstore.account_key_file: " + cfg.AccountKeyFile}, err
	case cfg.SASTokenFile != "":
		s, err := readSecret("sas_token_file", cfg.SASTokenFile, log)
		return credential{sas: trimSAS(s), from: "blobstore.sas_token_file: " + cfg.SASTokenFile}, err
	}
	if s := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); s != "" {
		return parseConnectionString("AZURE_STORAGE_CONNECTION_STRING", newSecret(s))
	}
	if s := os.Getenv("AZURE_STORAGE_KEY"); s != "" {
		account := os.Getenv("AZURE_STORAGE_ACCOUNT")
		if account == "" {
			account = loc.account
		}
		return credential{account: account, key: newSecret(s), from: "AZURE_STORAGE_KEY"}, nil
	}
	if s := os.Getenv("AZURE_STORAGE_SAS_TOKEN"); s != "" {
		return credential{sas: trimSAS(newSecret(s)), from: "AZURE_STORAGE_SAS_TOKEN"}, nil
	}
	return credential{from: "the identity of this machine"}, nil
}

func trimSAS(s secret) secret { return newSecret(strings.TrimPrefix(s.reveal(), "?")) }

// readSecret reads a file that holds one secret.
func readSecret(key, path string, log *slog.Logger) (secret, error) {
	bad := func(format string, args ...any) (secret, error) {
		return secret{}, &fault{ErrConfig, fmt.Sprintf("blobstore.%s: ", key) + fmt.Sprintf(format, args...)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return bad("%v", err)
	}
	s := strings.TrimSpace(string(data))
	if s == "" {
		return bad("%s is empty", path)
	}
	if strings.ContainsAny(s, "\r\n") {
		return bad("%s has more than one line", path)
	}
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o004 != 0 {
		log.Warn("everybody on this machine can read a secret: chmod o-r it", "file", path)
	}
	return newSecret(s), nil
}

// parseConnectionString takes the key or the SAS token out of a connection
// string: "Name=value;...". Where to connect to says the URL alone.
func parseConnectionString(from string, s secret) (credential, error) {
	c := credential{from: from}
	for part := range strings.SplitSeq(strings.TrimSpace(s.reveal()), ";") {
		name, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "accountname":
			c.account = value
		case "accountkey":
			c.key = newSecret(value)
		case "sharedaccesssignature":
			c.sas = trimSAS(newSecret(value))
		case "usedevelopmentstorage":
			if strings.EqualFold(value, "true") {
				c.account, c.key = emulatorAccount, newSecret(emulatorKey)
			}
		}
	}
	switch {
	case !c.key.empty() && c.account != "":
		c.sas = secret{}
	case !c.sas.empty():
		c.key = secret{}
	default:
		return credential{}, &fault{ErrConfig, from + ": is no connection string: it has neither AccountName and AccountKey nor SharedAccessSignature"}
	}
	return c, nil
}

// hint says what to do when the store refuses c.
func (c credential) hint() string {
	from := strings.Replace(c.from, ": ", " ", 1)
	switch {
	case !c.key.empty():
		return "check that " + from + " belongs to the account, that its network rules admit this machine, and this machine's clock"
	case !c.sas.empty():
		return "check that " + from + " has not expired and permits read and list, and for imports also add, create, write and delete"
	}
	return "give the identity of this machine the role Storage Blob Data Reader, and for imports Storage Blob Data Contributor"
}

// newClient returns a client of the container at loc.
func newClient(loc location, c credential, opts *container.ClientOptions) (*container.Client, error) {
	url := loc.endpoint + "/" + loc.container
	switch {
	case !c.key.empty():
		shared, err := container.NewSharedKeyCredential(c.account, c.key.reveal())
		if err != nil {
			return nil, &fault{ErrConfig, c.from + ": holds no account key: it is not base64"}
		}
		return container.NewClientWithSharedKeyCredential(url, shared, opts)
	case !c.sas.empty():
		return container.NewClientWithNoCredential(url+"?"+c.sas.reveal(), opts)
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, &fault{ErrConfig, "no Azure identity can be used: " + oneLine(err)}
	}
	return container.NewClient(url, tokens{identity}, opts)
}

// tokens marks the errors of a TokenCredential, so that they can be told from
// those of the store.
type tokens struct{ azcore.TokenCredential }

func (t tokens) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := t.TokenCredential.GetToken(ctx, opts)
	if err != nil && ctx.Err() == nil {
		err = tokenError{err}
	}
	return token, err
}

type tokenError struct{ err error }

func (e tokenError) Error() string { return oneLine(e.err) }

// oneLine returns the first line of a long message.
func oneLine(err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return line
}

var errNoIdentity = errors.New(`no identity for Azure: give this machine one, log in with "az login", or set one of account_key_file, sas_token_file and connection_string_file`)
