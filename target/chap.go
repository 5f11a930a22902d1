package target

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"unicode/utf8"
)

// CHAP says how initiators have to authenticate, RFC 7143 12.1.3.
type CHAP struct {
	// Users are those who are let in. There must be one.
	Users []User

	// Algorithms may be used; the first one that the initiator offers too
	// is chosen. None: all there are, the strongest first.
	Algorithms []Algorithm
}

// User is somebody who authenticates by CHAP.
type User struct {
	Name   string
	Secret Secret // of the user

	// With these the target authenticates itself to initiators that ask for
	// it (mutual CHAP). Without them such initiators are refused.
	MutualName   string
	MutualSecret Secret
}

// maxUser is the longest name of a user, in bytes.
const maxUser = 255

// maxCHAPValue is the longest challenge, in bytes, RFC 7143 12.1.3.
const maxCHAPValue = 1024

// Validate reports everything that is wrong with c.
func (c *CHAP) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("chap: "+format, args...)) }
	if len(c.Users) == 0 {
		bad("no user")
	}
	for i, u := range c.Users {
		if err := CheckUser(u.Name); err != nil {
			bad("user: %w", err)
			continue
		}
		if slices.ContainsFunc(c.Users[:i], func(o User) bool { return o.Name == u.Name }) {
			bad("user %s is given twice", u.Name)
		}
		if u.Secret.Empty() {
			bad("user %s has no secret", u.Name)
		}
		if (u.MutualName == "") != u.MutualSecret.Empty() {
			bad("user %s: the name and the secret of the target go together", u.Name)
		}
		// An initiator could have us compute what another one expects.
		for _, o := range c.Users {
			if u.MutualSecret.Equal(o.Secret) {
				bad("user %s: the secret of the target is also that of user %s", u.Name, o.Name)
			}
		}
	}
	for i, a := range c.Algorithms {
		if a.new() == nil || slices.Contains(c.Algorithms[:i], a) {
			bad("algorithm %v is unknown or given twice", a)
		}
	}
	return errors.Join(errs...)
}

// CheckUser tells what is wrong with the name of a user.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("empty; give the user a name")
	case len(name) > maxUser:
		return fmt.Errorf("longer than %d bytes", maxUser)
	case !utf8.ValidString(name) || name != printable(name):
		return fmt.Errorf("%q has characters that cannot be printed", name)
	}
	return nil
}

// user returns the user of that name.
func (c *CHAP) user(name string) (User, bool) {
	for _, u := range c.Users {
		if u.Name == name {
			return u, true
		}
	}
	return User{}, false
}

// choose returns the algorithm to use with an initiator that offers these,
// a list of numbers.
func (c *CHAP) choose(offers string) (Algorithm, bool) {
	ours := c.Algorithms
	if len(ours) == 0 {
		ours = Algorithms
	}
	var theirs []Algorithm
	for offer := range strings.SplitSeq(offers, ",") {
		if n, ok := number(offer, 0, 255); ok {
			theirs = append(theirs, Algorithm(n))
		}
	}
	for _, a := range ours {
		if slices.Contains(theirs, a) {
			return a, true
		}
	}
	return 0, false
}

// Algorithm is a hash that CHAP can use, by its number in IANA's list of PPP
// authentication algorithms.
type Algorithm byte

// The algorithms.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// Algorithms are all that there are, the strongest first.
var Algorithms = []Algorithm{SHA3256, SHA256, SHA1, MD5}

// String returns the name in IANA's list.
func (a Algorithm) String() string {
	switch a {
	case MD5:
		return "MD5"
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA-256"
	case SHA3256:
		return "SHA3-256"
	}
	return fmt.Sprintf("algorithm %d", byte(a))
}

// ParseAlgorithm returns the algorithm of that name.
func ParseAlgorithm(name string) (Algorithm, error) {
	names := make([]string, len(Algorithms))
	for i, a := range Algorithms {
		if names[i] = a.String(); strings.EqualFold(name, names[i]) {
			return a, nil
		}
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(names, ", "))
}

func (a Algorithm) new() hash.Hash {
	switch a {
	case MD5:
		return md5.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA3256:
		return sha3.New256()
	}
	return nil
}

// response returns what answers a challenge, RFC 1994 4.1.
func (a Algorithm) response(id byte, secret, challenge []byte) []byte {
	h := a.new()
	h.Write([]byte{id})
	h.Write(secret)
	h.Write(challenge)
	return h.Sum(nil)
}

// binaryValue reads a binary value, RFC 7143 6.1: hexadecimal after 0x, or
// base64 after 0b. An odd number of hexadecimal digits stands for a number whose
// first digit is zero.
func binaryValue(v string) ([]byte, bool) {
	if len(v) < 3 || v[0] != '0' {
		return nil, false
	}
	digits := v[2:]
	switch v[1] {
	case 'x', 'X':
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err := hex.DecodeString(digits)
		return b, err == nil
	case 'b', 'B':
		if strings.ContainsAny(digits, "\r\n") { // which the decoder would pass over
			return nil, false
		}
		b, err := base64.StdEncoding.DecodeString(digits)
		return b, err == nil
	}
	return nil, false
}

// binaryText is the opposite of binaryValue.
func binaryText(b []byte) string { return "0x" + hex.EncodeToString(b) }
