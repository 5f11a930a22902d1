package node

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"skylun/target"
)

// ChapConfig is how initiators authenticate by CHAP: the one user of its first
// four keys, or those of the list, or all of them. Without any user nobody has to
// authenticate.
type ChapConfig struct {
	User             string     `yaml:"user"`
	SecretFile       string     `yaml:"secret_file"`
	MutualUser       string     `yaml:"mutual_user"`        // as whom the target authenticates itself to initiators that ask
	MutualSecretFile string     `yaml:"mutual_secret_file"` //
	Users            []ChapUser `yaml:"users"`
	Algorithms       []string   `yaml:"algorithms"` // in order of preference; empty: all, the strongest first
}

// ChapUser is one of several users.
type ChapUser struct {
	User             string `yaml:"user"`
	SecretFile       string `yaml:"secret_file"`
	MutualUser       string `yaml:"mutual_user"`
	MutualSecretFile string `yaml:"mutual_secret_file"`
}

// DiscoveryConfig is who may ask for the targets.
type DiscoveryConfig struct {
	Chap ChapConfig `yaml:"chap"`
}

// chapEntry is a user and the key it has in the configuration.
type chapEntry struct {
	key string
	ChapUser
}

// entries returns all users of c, which is at key.
func (c *ChapConfig) entries(key string) (all []chapEntry) {
	if u := (ChapUser{c.User, c.SecretFile, c.MutualUser, c.MutualSecretFile}); u != (ChapUser{}) {
		all = append(all, chapEntry{key, u})
	}
	for i, u := range c.Users {
		all = append(all, chapEntry{fmt.Sprintf("%s.users[%d]", key, i), u})
	}
	return all
}

// Asked tells whether anybody has to authenticate.
func (c *ChapConfig) Asked() bool { return len(c.entries("")) > 0 }

// resolve makes the paths absolute.
func (c *ChapConfig) resolve(abs func(*string)) {
	abs(&c.SecretFile)
	abs(&c.MutualSecretFile)
	for i := range c.Users {
		abs(&c.Users[i].SecretFile)
		abs(&c.Users[i].MutualSecretFile)
	}
}

// validate looks at everything but the files.
func (c *ChapConfig) validate(ps *Problems, key string) {
	users := map[string]string{}
	all := c.entries(key)
	for _, u := range all {
		if u.User == "" {
			ps.add(u.key+".user", "missing; name the user that initiators have to log in as")
		} else if err := target.CheckUser(u.User); err != nil {
			ps.add(u.key+".user", "%v", err)
		} else if first, dup := users[u.User]; dup {
			ps.add(u.key+".user", "%s is %s.user already", u.User, first)
		} else {
			users[u.User] = u.key
		}
		if u.SecretFile == "" {
			ps.add(u.key+".secret_file", "missing; name a file that holds the secret of the user")
		}
		switch {
		case u.MutualUser == "" && u.MutualSecretFile != "":
			ps.add(u.key+".mutual_user", "missing; mutual_secret_file needs the name that the target has for initiators")
		case u.MutualUser != "" && u.MutualSecretFile == "":
			ps.add(u.key+".mutual_secret_file", "missing; mutual_user needs a file that holds the secret of the target")
		case u.MutualUser != "":
			if err := target.CheckUser(u.MutualUser); err != nil {
				ps.add(u.key+".mutual_user", "%v", err)
			}
		}
	}
	seen := map[target.Algorithm]bool{}
	for i, name := range c.Algorithms {
		a, err := target.ParseAlgorithm(name)
		switch akey := fmt.Sprintf("%s.algorithms[%d]", key, i); {
		case err != nil:
			ps.add(akey, "%v", err)
		case seen[a]:
			ps.add(akey, "%v is given twice", a)
		default:
			seen[a] = true
		}
	}
	if len(c.Algorithms) > 0 && len(all) == 0 {
		ps.add(key+".user", "missing; algorithms without a user ask nobody to authenticate")
	}
}

// chaps are the CHAP settings of a configuration with what the files hold.
type chaps struct {
	discovery *target.CHAP
	targets   map[string]*target.CHAP // by name; nil: no CHAP
}

// readSecrets reads the files of all users. cfg must be valid.
func readSecrets(cfg *Config, log *slog.Logger) (*chaps, error) {
	r := secretReader{log: log, warned: map[string]bool{}}
	s := &chaps{r.chap(&cfg.Discovery.Chap, "discovery.chap"), map[string]*target.CHAP{}}
	for i, t := range cfg.Targets {
		s.targets[t.IQN] = r.chap(&t.Chap, fmt.Sprintf("targets[%d].chap", i))
	}
	r.compare()
	return s, r.problems.err()
}

type secretReader struct {
	log      *slog.Logger
	warned   map[string]bool // files
	problems Problems

	// Where each secret comes from, those of users and those of targets.
	users, mutual []keyedSecret
}

type keyedSecret struct {
	key string
	target.Secret
}

// chap returns c for the target, or nil when it has no user.
func (r *secretReader) chap(c *ChapConfig, key string) *target.CHAP {
	all := c.entries(key)
	if len(all) == 0 {
		return nil
	}
	chap := &target.CHAP{}
	for _, e := range all {
		u := target.User{Name: e.User, MutualName: e.MutualUser}
		u.Secret = r.read(e.key+".secret_file", e.SecretFile)
		r.users = append(r.users, keyedSecret{e.key + ".secret_file", u.Secret})
		if e.MutualSecretFile != "" {
			u.MutualSecret = r.read(e.key+".mutual_secret_file", e.MutualSecretFile)
			r.mutual = append(r.mutual, keyedSecret{e.key + ".mutual_secret_file", u.MutualSecret})
		}
		chap.Users = append(chap.Users, u)
	}
	for _, name := range c.Algorithms {
		if a, err := target.ParseAlgorithm(name); err == nil {
			chap.Algorithms = append(chap.Algorithms, a)
		}
	}
	return chap
}

// read reads a secret: the content of a file without the end of its line.
func (r *secretReader) read(key, file string) target.Secret {
	b, mode, err := readSecretFile(file)
	if err != nil {
		r.problems.add(key, "%v", err)
		return target.Secret{}
	}
	if mode.Perm()&0o027 != 0 && !r.warned[file] {
		r.warned[file] = true
		r.log.Warn("a secret can be read or changed by others; use chmod 600", "key", key, "file", file, "mode", fmt.Sprintf("%04o", mode.Perm()))
	}
	s, err := target.NewSecret(b)
	if err != nil {
		r.problems.add(key, "the secret in %s %v", file, err)
	}
	return s
}

func readSecretFile(file string) ([]byte, os.FileMode, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, 0, fmt.Errorf("%w; name a file that holds nothing but the secret", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, target.MaxSecret+3)) // enough to tell that it is too long
	if err != nil {
		return nil, 0, err
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r")), info.Mode(), nil
}

// compare finds secrets that authenticate both sides: who is asked for a
// response could have it from the other side, RFC 7143 12.1.3.
func (r *secretReader) compare() {
	for _, m := range r.mutual {
		for _, u := range r.users {
			if m.Equal(u.Secret) {
				r.problems.add(m.key, "holds the same secret as %s; the secret of a target must not be that of a user", u.key)
				break
			}
		}
	}
}
