package raid

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// parseNBD returns socket and export of unix:SOCKET?export=NAME.
func parseNBD(where string) (socket, export string, err error) {
	rest, ok := strings.CutPrefix(where, "unix:")
	socket, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if !ok || socket == "" || err != nil {
		return "", "", fmt.Errorf("%q is not an NBD export: want unix:SOCKET, or unix:SOCKET?export=NAME", where)
	}
	for key := range values {
		if key != "export" {
			return "", "", fmt.Errorf("%q: unknown %q; want unix:SOCKET?export=NAME", where, key)
		}
	}
	return socket, values.Get("export"), nil
}

// CheckNBD tells what is wrong with how an export is written.
func CheckNBD(where string) error {
	_, _, err := parseNBD(where)
	return err
}

func openNBD(where string) (Device, error) { return nil, errors.New("not yet") }
