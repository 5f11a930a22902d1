package initiator

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"skylun/target/pdu"
)

// CHAP is how to authenticate, RFC 7143 12.1.3.
type CHAP struct {
	User, Secret string
	Algorithms   string // CHAP_A; empty: "8,7,6,5"

	// Mutual is the secret with which the target has to authenticate itself,
	// and MutualUser its name, if that matters. Empty: it need not.
	Mutual, MutualUser string
	Challenge          []byte // what to send it; nil: random bytes

	Base64 bool // how to write binary values

	// Chosen is the algorithm that the target has chosen.
	Chosen string
}

// Encode returns a binary value as text.
func (h *CHAP) Encode(b []byte) string {
	if h.Base64 {
		return "0b" + base64.StdEncoding.EncodeToString(b)
	}
	return "0x" + hex.EncodeToString(b)
}

// Decode is the opposite of Encode, for either way of writing.
func Decode(v string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(v, "0x"); ok {
		return hex.DecodeString(digits)
	}
	if digits, ok := strings.CutPrefix(v, "0b"); ok {
		return base64.StdEncoding.DecodeString(digits)
	}
	return nil, fmt.Errorf("%q is no binary value", v)
}

// Response returns the answer to a challenge, with the algorithm of that
// number.
func Response(algorithm, id, secret string, challenge []byte) ([]byte, error) {
	n, err := strconv.ParseUint(id, 0, 8)
	if err != nil {
		return nil, fmt.Errorf("CHAP_I=%s: %w", id, err)
	}
	text := append([]byte{byte(n)}, secret...)
	text = append(text, challenge...)
	switch algorithm {
	case "5":
		sum := md5.Sum(text)
		return sum[:], nil
	case "6":
		sum := sha1.Sum(text)
		return sum[:], nil
	case "7":
		sum := sha256.Sum256(text)
		return sum[:], nil
	case "8":
		sum := sha3.Sum256(text)
		return sum[:], nil
	}
	return nil, fmt.Errorf("CHAP_A=%s was not offered", algorithm)
}

// one returns the value of a key that is there once.
func (k Keys) one(key string) (string, error) {
	v := k.Get(key)
	if len(v) != 1 {
		return "", fmt.Errorf("%s is there %d times in %q", key, len(v), k)
	}
	return v[0], nil
}

// Offer returns CHAP_A.
func (h *CHAP) Offer() Keys {
	if h.Algorithms == "" {
		return Keys{"CHAP_A", "8,7,6,5"}
	}
	return Keys{"CHAP_A", h.Algorithms}
}

// Answer returns what answers the challenge of the target, which came with
// these keys, and the challenge for the target, if it has to authenticate.
func (h *CHAP) Answer(got Keys) (Keys, error) {
	var err error
	value := func(key string) string {
		v, e := got.one(key)
		if err == nil {
			err = e
		}
		return v
	}
	id, text := value("CHAP_I"), value("CHAP_C")
	if h.Chosen = value("CHAP_A"); err != nil {
		return nil, err
	}
	challenge, err := Decode(text)
	if err != nil {
		return nil, err
	}
	response, err := Response(h.Chosen, id, h.Secret, challenge)
	if err != nil {
		return nil, err
	}
	answer := Keys{"CHAP_N", h.User, "CHAP_R", h.Encode(response)}
	if h.Mutual == "" {
		return answer, nil
	}
	if h.Challenge == nil {
		h.Challenge = make([]byte, 16)
		rand.Read(h.Challenge)
	}
	return append(answer, "CHAP_I", mutualID, "CHAP_C", h.Encode(h.Challenge)), nil
}

const mutualID = "77"

// Check checks how the target authenticates itself.
func (h *CHAP) Check(got Keys) error {
	if h.Mutual == "" {
		if got.Get("CHAP_N") != nil || got.Get("CHAP_R") != nil {
			return fmt.Errorf("target authenticates itself unasked: %q", got)
		}
		return nil
	}
	name, err := got.one("CHAP_N")
	if err != nil {
		return err
	}
	if h.MutualUser != "" && name != h.MutualUser {
		return fmt.Errorf("target calls itself %q, not %q", name, h.MutualUser)
	}
	text, err := got.one("CHAP_R")
	if err != nil {
		return err
	}
	response, err := Decode(text)
	if err != nil {
		return err
	}
	want, err := Response(h.Chosen, mutualID, h.Mutual, h.Challenge)
	if err != nil {
		return err
	}
	if !bytes.Equal(response, want) {
		return fmt.Errorf("target has the wrong secret")
	}
	return nil
}

// authenticate goes through the security stage, with first in its first
// request, and returns all keys of the target.
func (c *Conn) authenticate(h *CHAP, itt uint32, first Keys) (Keys, error) {
	exchange := func(transit bool, keys Keys) (Keys, error) {
		p := c.NewLogin(pdu.Security, pdu.Operational, transit, keys)
		p.SetITT(itt)
		if err := c.Send(p); err != nil {
			return nil, err
		}
		r, got, err := c.ReceiveLogin()
		if err == nil && r.Final() != transit {
			err = fmt.Errorf("target wants to go on: %t, initiator: %t", r.Final(), transit)
		}
		return got, err
	}
	all, err := exchange(false, append(first, "AuthMethod", "CHAP"))
	if err != nil {
		return all, err
	}
	got, err := exchange(false, h.Offer())
	all = append(all, got...)
	if err != nil {
		return all, err
	}
	answer, err := h.Answer(got)
	if err != nil {
		return all, err
	}
	got, err = exchange(true, answer)
	all = append(all, got...)
	if err != nil {
		return all, err
	}
	return all, h.Check(got)
}
