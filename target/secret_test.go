package target

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// RFC 7143 6.1: binary values.
func TestBinaryValue(t *testing.T) {
	for _, c := range []struct {
		text string
		want []byte // nil: not one
	}{
		{"0x00", []byte{0}}, {"0X0aFf", []byte{10, 255}}, {"0x1", []byte{1}}, {"0xabc", []byte{0x0a, 0xbc}},
		{"0bAA==", []byte{0}}, {"0BAAE=", []byte{0, 1}}, {"0bAAEC", []byte{0, 1, 2}}, {"0b+/8=", []byte{0xfb, 0xff}},
		{"", nil}, {"0", nil}, {"0x", nil}, {"0b", nil}, {"x00", nil}, {"00", nil}, {"0x0g", nil}, {"0x 00", nil}, {"0x00 ", nil},
		{"0bA", nil}, {"0bAA", nil}, {"0bAA=", nil}, {"0bA===", nil}, {"0bAA==AA==", nil}, {"0bAAE\n=", nil}, {"0b-_8=", nil}, {"0d12", nil}, {"1x00", nil},
	} {
		got, ok := binaryValue(c.text)
		if ok != (c.want != nil) || ok && !bytes.Equal(got, c.want) {
			t.Errorf("%q: %x, %t; want %x", c.text, got, ok, c.want)
		}
	}
	for n := range 70 {
		b := bytes.Repeat([]byte{0xa5}, n+1)
		for _, text := range []string{binaryText(b), "0b" + base64.StdEncoding.EncodeToString(b)} {
			if got, ok := binaryValue(text); !ok || !bytes.Equal(got, b) {
				t.Errorf("%q: %x, %t", text, got, ok)
			}
		}
	}
}

// What CHAP is given is checked when a target is added.
func TestCHAPValidate(t *testing.T) {
	a, b := secret(t, testSecret), secret(t, testMutual)
	for _, c := range []struct {
		chap CHAP
		want string
	}{
		{CHAP{}, "no user"},
		{CHAP{Users: []User{{Secret: a}}}, "empty"},
		{CHAP{Users: []User{{Name: "x\x00", Secret: a}}}, "cannot be printed"},
		{CHAP{Users: []User{{Name: strings.Repeat("x", 256), Secret: a}}}, "longer"},
		{CHAP{Users: []User{{Name: "x"}}}, "no secret"},
		{CHAP{Users: []User{{Name: "x", Secret: a}, {Name: "x", Secret: b}}}, "twice"},
		{CHAP{Users: []User{{Name: "x", Secret: a, MutualName: "y"}}}, "go together"},
		{CHAP{Users: []User{{Name: "x", Secret: a, MutualSecret: b}}}, "go together"},
		{CHAP{Users: []User{{Name: "x", Secret: a, MutualName: "y", MutualSecret: a}}}, "also that of user x"},
		{CHAP{Users: []User{{Name: "x", Secret: a, MutualName: "y", MutualSecret: b}, {Name: "z", Secret: b}}}, "also that of user z"},
		{CHAP{Users: []User{{Name: "x", Secret: a}}, Algorithms: []Algorithm{4}}, "unknown"},
		{CHAP{Users: []User{{Name: "x", Secret: a}}, Algorithms: []Algorithm{5, 5}}, "twice"},
	} {
		err := c.chap.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.chap, err, c.want)
		}
	}
	if err := testCHAP(t).Validate(); err != nil {
		t.Error(err)
	}
	s, err := New(Config{Portals: At("127.0.0.1:0")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddTarget(Target{Name: chapTarget, CHAP: &CHAP{}}); err == nil {
		t.Error("target without users is added")
	}
	if _, err := New(Config{Portals: At("127.0.0.1:0"), DiscoveryCHAP: &CHAP{}}, testLog(t)); err == nil {
		t.Error("discovery without users is accepted")
	}
}

// A secret shows nowhere.
func TestSecretHidden(t *testing.T) {
	chap := testCHAP(t)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "chap", chap, "user", chap.Users[0], "secret", chap.Users[0].Secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "chap", chap, "user", chap.Users[0], "secret", chap.Users[0].Secret)
	all, err := json.Marshal(chap)
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(all)
	l := login{auth: auth{chap: chap}}
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown += fmt.Sprintf(f, *chap) + fmt.Sprintf(f, chap.Users[0].Secret) + fmt.Sprintf(f, l.auth)
	}
	for _, s := range []string{testSecret, testMutual} {
		for _, form := range []string{s, fmt.Sprintf("%x", s), fmt.Sprint([]byte(s))[1:20], base64.StdEncoding.EncodeToString([]byte(s))} {
			if strings.Contains(shown, form) {
				t.Errorf("%q shows in %s", form, shown)
			}
		}
	}
	for n, ok := range map[int]bool{0: false, 11: false, 12: true, 255: true, 256: false} {
		if _, err := NewSecret(bytes.Repeat([]byte("s"), n)); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "ss") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
