package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"skylun/node"
)

// envPrefix begins the variables that override keys of the file:
// SKYLUN_BLOBSTORE_URL is blobstore.url.
const envPrefix = "SKYLUN"

// settings is a configuration and where each part of it came from.
type settings struct {
	node.Config
	file  string
	lines map[string]int    // of each key in the file
	env   map[string]string // variables that override keys, by key
}

// loadConfig reads a configuration file, lays the environment over it and
// validates the result. An error has a line for each problem and is wrong
// usage.
func loadConfig(file string, overrides ...func(*node.Config)) (*settings, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, usagef("configuration %s does not exist; name another with -c", file)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("configuration: %w", err)}
	}
	defer f.Close()
	s := &settings{Config: node.DefaultConfig(), file: file, env: map[string]string{}}
	keys, err := readKeys(f, s.Config)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", file, err)}
	}
	s.lines = keys.lines
	problems := keys.problems

	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	if err := v.MergeConfigMap(keys.values); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", file, err)}
	}
	scalarKeys(reflect.TypeFor[node.Config](), "", func(key string, t reflect.Type) {
		text, ok := os.LookupEnv(envName(key))
		if !ok || text == "" {
			return
		}
		s.env[key] = envName(key)
		if err := checkText(text, t); err != nil {
			problems = append(problems, node.Problem{Key: key, Text: err.Error()})
			return
		}
		v.BindEnv(key)
	})
	if v.IsSet("portals") { // else the first one would be laid over the default
		s.Portals = nil
	}
	if err := v.UnmarshalExact(&s.Config, decoding); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", file, err)}
	}
	for _, f := range overrides {
		f(&s.Config)
	}
	if err := s.Resolve(filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var more node.Problems
	if err := s.Validate(); err != nil && !errors.As(err, &more) {
		return nil, usageError{fmt.Errorf("%s: %w", file, err)}
	}
	unread := slices.Clone(problems)
	for _, p := range more {
		if !slices.ContainsFunc(unread, func(u node.Problem) bool { return follows(p, u) }) {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return nil, usageError{s.locate(problems)}
	}
	return s, nil
}

// follows tells whether problem p may be there only because the key of problem
// u could not be read: it is the same key, one around or below it, or one
// that is missing where u is misspelt.
func follows(p, u node.Problem) bool {
	if outer(p.Key) == outer(u.Key) && strings.HasPrefix(p.Text, "missing") {
		return true
	}
	return within(p.Key, u.Key) || within(u.Key, p.Key)
}

// within tells whether a key is another one, or below it.
func within(key, around string) bool {
	rest, ok := strings.CutPrefix(key, around)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// envName returns the variable that overrides a key.
func envName(key string) string {
	return envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func decoding(c *mapstructure.DecoderConfig) {
	c.TagName = "yaml"
	c.DecodeHook = mapstructure.ComposeDecodeHookFunc(
		mapstructure.TextUnmarshallerHookFunc(),
		mapstructure.StringToTimeDurationHookFunc(),
		func(from, to reflect.Type, data any) (any, error) {
			if s, ok := data.(string); ok && isTextList(to) {
				return splitList(s), nil
			}
			return data, nil
		},
	)
}

// splitList reads the list that an environment variable holds.
func splitList(s string) (list []string) {
	for e := range strings.SplitSeq(s, ",") {
		list = append(list, strings.TrimSpace(e))
	}
	return list
}

// checkText tells whether the text of a variable can be had as a t.
func checkText(text string, t reflect.Type) error {
	switch {
	case t == reflect.TypeFor[node.Size]():
		_, err := node.ParseSize(text)
		return err
	case t == reflect.TypeFor[time.Duration]():
		if _, err := time.ParseDuration(text); err != nil {
			return fmt.Errorf("%q is not %s", text, wantOf(t))
		}
	case t.Kind() == reflect.Int:
		if _, err := strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q is not %s", text, wantOf(t))
		}
	}
	return nil
}

// locate puts before each problem of a configuration where its key was set:
// the line of the file, or the variable. Other errors stay as they are.
func (s *settings) locate(err error) error {
	var problems node.Problems
	if !errors.As(err, &problems) {
		return err
	}
	type located struct {
		line int
		text string
	}
	var all []located
	for _, p := range problems {
		if name := s.variable(p.Key); name != "" {
			all = append(all, located{0, fmt.Sprintf("%s (environment): %v", name, p)})
		} else if line := s.line(p.Key); line > 0 {
			all = append(all, located{line, fmt.Sprintf("%s:%d: %v", s.file, line, p)})
		} else {
			all = append(all, located{0, fmt.Sprintf("%s: %v", s.file, p)})
		}
	}
	slices.SortStableFunc(all, func(a, b located) int { return a.line - b.line })
	errs := make([]error, len(all))
	for i, l := range all {
		errs[i] = errors.New(l.text)
	}
	return errors.Join(errs...)
}

// line returns the line of a key, or of the nearest key around it.
func (s *settings) line(key string) int {
	for ; key != ""; key = outer(key) {
		if line, ok := s.lines[key]; ok {
			return line
		}
	}
	return 0
}

// variable returns the variable that a key, or one around it, comes from.
func (s *settings) variable(key string) string {
	for ; key != ""; key = outer(key) {
		if name, ok := s.env[key]; ok {
			return name
		}
	}
	return ""
}

// outer returns the key around a key: targets[0].luns of targets[0].luns[1].
func outer(key string) string { return key[:max(0, strings.LastIndexAny(key, ".["))] }

// strayEnv returns a line for each variable that looks like an override and
// is none.
func strayEnv() (lines []string) {
	var names []string
	scalarKeys(reflect.TypeFor[node.Config](), "", func(key string, _ reflect.Type) {
		names = append(names, envName(key))
	})
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, envPrefix+"_") && name != configEnv && !slices.Contains(names, name) {
			lines = append(lines, name+" overrides no key"+didYouMean(name, names))
		}
	}
	return lines
}
