package target

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxName is the most bytes of an iSCSI name, RFC 7143 4.2.7.1.
const maxName = 223

// ValidIQN tells whether name can be the name of a target: nil, or an error
// that says what is wrong. Names are of type iqn., eui. or naa., RFC 7143
// 4.2.7.3 to 4.2.7.5, and written in lower case as RFC 3722 would
// have them.
func ValidIQN(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("iSCSI name %q: %w", name, err)
	}
	return nil
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("longer than %d bytes", maxName)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != ':' {
			return fmt.Errorf("%q is not allowed; use a-z, 0-9, '-', '.' and ':'", r)
		}
	}
	kind, rest, _ := strings.Cut(name, ".")
	switch kind {
	case "iqn":
		return checkIQN(rest)
	case "eui":
		if len(rest) != 16 || !isHex(rest) {
			return errors.New("eui. is followed by 16 hexadecimal digits")
		}
	case "naa":
		if len(rest) != 16 && len(rest) != 32 || !isHex(rest) {
			return errors.New("naa. is followed by 16 or 32 hexadecimal digits")
		}
	default:
		return errors.New("starts with none of iqn., eui., naa.; an example is iqn.2026-11.com.example:disk")
	}
	return nil
}

// checkIQN checks what follows "iqn.": a date and a reversed domain name,
// perhaps a colon and anything.
func checkIQN(s string) error {
	date, domain, _ := strings.Cut(s, ".")
	if len(date) != 7 || date[4] != '-' || !isDigits(date[:4]) || !isDigits(date[5:]) || date[5:] < "01" || date[5:] > "12" {
		return errors.New("iqn. is followed by a date as in 2026-11")
	}
	domain, suffix, colon := strings.Cut(domain, ":")
	for _, label := range strings.Split(domain, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("the date is followed by a reversed domain name as in .com.example")
		}
	}
	if colon && suffix == "" {
		return errors.New("nothing follows the colon")
	}
	return nil
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
func isHex(s string) bool    { return strings.Trim(s, "0123456789abcdef") == "" }

// peerName returns the name that an initiator gives for itself or for a target
// in the form in which names are compared, and whether it can be one. It asks
// for less than ValidIQN: initiators are named by others.
func peerName(b []byte) (string, bool) {
	if len(b) == 0 || len(b) > maxName || !utf8.Valid(b) {
		return "", false
	}
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return "", false
		}
	}
	return strings.ToLower(string(b)), true
}
