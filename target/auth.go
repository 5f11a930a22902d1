package target

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"

	"skylun/target/pdu"
)

// Authentication in a login, RFC 7143 6.3.2 and 12.1.3.
//
//	initiator                        target
//	AuthMethod=CHAP,None ----------->
//	                     <----------- AuthMethod=CHAP
//	CHAP_A=8,7,5         ----------->
//	                     <----------- CHAP_A=8 CHAP_I CHAP_C
//	CHAP_N CHAP_R        -----------> (CHAP_I CHAP_C: the target is to authenticate itself)
//	                     <----------- T (CHAP_N CHAP_R)
//
// AuthMethod and CHAP_A may come in one request, operational keys with any of
// them, and T early: it is granted when the initiator is authenticated. Whatever is
// wrong, the answer is the same status, after the same work; only the log says
// more.

// authStep is how far the authentication of an initiator has come.
type authStep int

const (
	authOpen       authStep = iota // no method has been chosen
	authChosen                     // CHAP has
	authChallenged                 // and we wait for the response
	authDone                       // the initiator is who it says
)

// auth is the authentication of a login.
type auth struct {
	chap *CHAP // what is asked for; nil: nothing
	step authStep
	user string // who has been authenticated

	keys map[string]string // of the request at hand: AuthMethod, CHAP_A, ...

	algorithm Algorithm
	id        byte
	challenge []byte
}

// authKeys are the keys of authentication, RFC 7143 12.1.
var authKeys = []string{"AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"}

// take keeps a key of the request at hand if it belongs to authentication.
// Of a key that comes twice the last one counts.
func (a *auth) take(key, value string) bool {
	if !slices.Contains(authKeys, key) {
		return false
	}
	if a.keys == nil {
		a.keys = make(map[string]string)
	}
	a.keys[key] = value
	return true
}

// authenticated tells whether the initiator may leave the security stage.
func (a *auth) authenticated() bool { return a.chap == nil || a.step == authDone }

// deny refuses a login for want of authentication.
func deny(format string, args ...any) error {
	return refuse(pdu.LoginAuthFailure, format, args...)
}

// authenticate answers the keys of authentication in a complete request.
func (l *login) authenticate(transit bool) error {
	a := &l.auth
	keys := a.keys
	a.keys = nil
	if a.chap == nil {
		return l.withoutCHAP(keys)
	}
	if l.stage != pdu.Security {
		if a.step != authDone {
			return deny("CHAP is asked for, and the initiator leaves out the security stage")
		}
		if len(keys) > 0 {
			return deny("CHAP after the security stage")
		}
		return nil
	}
	if offers, ok := keys["AuthMethod"]; ok {
		if !slices.Contains(strings.Split(offers, ","), "CHAP") {
			return deny("CHAP is asked for, and the initiator offers AuthMethod=%s", printable(offers))
		}
		a.step = max(a.step, authChosen)
		l.answer("AuthMethod", "CHAP")
		delete(keys, "AuthMethod")
	} else if a.step == authOpen && (transit || len(keys) > 0) {
		return deny("CHAP is asked for, and the initiator offers no AuthMethod")
	}
	if offers, ok := keys["CHAP_A"]; ok {
		if len(keys) > 1 {
			return deny("CHAP_A comes together with other keys of CHAP")
		}
		return l.challengeInitiator(offers)
	}
	if len(keys) > 0 {
		return l.checkResponse(keys)
	}
	return nil
}

// withoutCHAP answers the keys of authentication where none is asked for.
func (l *login) withoutCHAP(keys map[string]string) error {
	if offers, ok := keys["AuthMethod"]; ok {
		if !slices.Contains(strings.Split(offers, ","), "None") {
			return deny("no authentication is configured, and the initiator offers AuthMethod=%s", printable(offers))
		}
		l.answer("AuthMethod", "None")
	}
	for _, key := range authKeys[1:] { // of a method that was not chosen
		if _, ok := keys[key]; ok {
			l.answer(key, answerIrrelevant)
		}
	}
	return nil
}

// challengeInitiator answers CHAP_A.
func (l *login) challengeInitiator(offers string) error {
	a := &l.auth
	if a.step != authChosen {
		return deny("CHAP_A comes twice")
	}
	var ok bool
	if a.algorithm, ok = a.chap.choose(offers); !ok {
		return deny("none of the algorithms that the initiator offers is configured: CHAP_A=%s", printable(offers))
	}
	b := make([]byte, 1+a.algorithm.new().Size())
	rand.Read(b)
	a.id, a.challenge = b[0], b[1:]
	a.step = authChallenged
	l.answer("CHAP_A", strconv.Itoa(int(a.algorithm)))
	l.answer("CHAP_I", strconv.Itoa(int(a.id)))
	l.answer("CHAP_C", binaryText(a.challenge))
	return nil
}

// checkResponse takes CHAP_N and CHAP_R, and answers CHAP_I and CHAP_C if they
// are there.
func (l *login) checkResponse(keys map[string]string) error {
	a := &l.auth
	if a.step != authChallenged {
		return deny("CHAP_N, CHAP_R, CHAP_I or CHAP_C without a challenge")
	}
	name, named := keys["CHAP_N"]
	response, ok := binaryValue(keys["CHAP_R"])
	user, known := a.chap.user(name)
	secret := user.Secret.reveal()
	if !known { // do the same work
		secret = a.challenge
	}
	right := subtle.ConstantTimeCompare(response, a.algorithm.response(a.id, secret, a.challenge)) == 1
	switch {
	case !named || !ok:
		return deny("CHAP_N is missing, or CHAP_R is no binary value")
	case !known:
		return deny("CHAP user %q is unknown", printable(name))
	case !right:
		return deny("CHAP user %q has given the wrong secret", name)
	}
	if err := l.identify(user, keys); err != nil {
		return err
	}
	a.step, a.user = authDone, user.Name
	return nil
}

// identify authenticates the target to the initiator, if that wants it.
func (l *login) identify(user User, keys map[string]string) error {
	a := &l.auth
	i, wantsI := keys["CHAP_I"]
	c, wantsC := keys["CHAP_C"]
	if !wantsI && !wantsC {
		return nil
	}
	id, okI := number(i, 0, 255)
	challenge, okC := binaryValue(c)
	switch {
	case !okI || !okC || len(challenge) > maxCHAPValue:
		return deny("CHAP_I or CHAP_C of the initiator is missing or no value of that kind")
	case bytes.Equal(challenge, a.challenge):
		return deny("the initiator sends our own challenge back")
	case user.MutualSecret.Empty():
		return deny("the initiator wants the target to authenticate itself, and user %q has no mutual_secret_file", user.Name)
	}
	l.answer("CHAP_N", user.MutualName)
	l.answer("CHAP_R", binaryText(a.algorithm.response(byte(id), user.MutualSecret.reveal(), challenge)))
	return nil
}
