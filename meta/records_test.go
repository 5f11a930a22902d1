package meta

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	load := func(prefix string) (all []string) {
		t.Helper()
		err := db.Records().Load(prefix, func(k string, v []byte) error {
			all = append(all, fmt.Sprintf("%s=%s", k, v))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	r := db.Records()
	if err := r.Store(map[string][]byte{"b/2": []byte("two"), "a": {}, "b/1": []byte("one"), "c": []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Store(map[string][]byte{"c": nil, "none": nil, "b/2": []byte("zwei")}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got, want := load(""), []string{"a=", "b/1=one", "b/2=zwei"}; !slices.Equal(got, want) {
		t.Errorf("all records: %v, want %v", got, want)
	}
	if got, want := load("b/"), []string{"b/1=one", "b/2=zwei"}; !slices.Equal(got, want) {
		t.Errorf("records below b/: %v, want %v", got, want)
	}
	if p := db.Check(); len(p) > 0 {
		t.Errorf("check: %v", p)
	}
	// A change that fails changes nothing.
	if err := db.Records().Store(map[string][]byte{"": []byte("no key"), "d": []byte("x")}); err == nil {
		t.Error("a record without a key was stored")
	}
	if got := load("d"); got != nil {
		t.Errorf("half of a change was stored: %v", got)
	}
	err = db.bolt.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRecords).Put([]byte("b/1"), []byte("flipped bits"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Records().Load("b/", func(string, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "b/1") {
		t.Errorf("a damaged record was loaded: %v", err)
	}
	if p := db.Check(); len(p) != 1 || !strings.Contains(p[0], "b/1") {
		t.Errorf("check of a damaged record: %v", p)
	}
}
