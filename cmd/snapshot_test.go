package cmd

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"skylun/node"
)

// TestSnapshots takes, shows, uses and removes snapshots of volumes that no
// process uses.
func TestSnapshots(t *testing.T) {
	c := newCLI(t, testYAML)
	image := make([]byte, 1<<20)
	copy(image[512<<10:], "not zero")
	if err := os.WriteFile(c.path("disk.img"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	c.want(nil, "image", "import", c.path("disk.img"))
	c.want(nil, "volume", "create", "v", "--image", "disk.img")
	c.want(nil, "volume", "create", "w", "--size", "2MiB")
	c.want([]string{"no snapshots in " + c.path("d")}, "snapshot", "list")

	c.refuse(2, "snapshot what? One of: create, export, list, rm, rollback, show", "snapshot")
	c.refuse(2, "requires at least 1 arg", "snapshot", "create")
	c.refuse(2, "snapshot create s: name the volumes that it is to be of", "snapshot", "create", "s")
	c.refuse(2, "accepts 1 arg", "snapshot", "rm")
	c.refuse(2, "accepts 2 arg", "clone", "s")
	c.refuse(2, "leave out --image and --size", "volume", "create", "x", "--snapshot", "s", "--size", "1GiB")
	c.refuse(1, `"s/v" is not a snapshot name: letters, digits, '.', '_' and '-'`, "snapshot", "create", "s/v", "v")
	c.refuse(1, "volume nope: no such volume", "snapshot", "create", "s", "v", "nope")
	c.refuse(1, "volume v is named twice", "snapshot", "create", "s", "v", "v")
	for _, args := range [][]string{{"show", "s"}, {"rm", "s"}, {"rollback", "s"}, {"export", "s", c.path("out")}} {
		c.refuse(1, "snapshot s: no such snapshot on this node", append([]string{"snapshot"}, args...)...)
	}
	c.refuse(1, "snapshot s: no such snapshot on this node", "clone", "s", "x")

	c.want([]string{"snapshot s of 2 volumes; writes were held for "}, "snapshot", "create", "s", "v", "w")
	c.refuse(1, "snapshot s already exists", "snapshot", "create", "s", "v")
	out, _, _ := c.run("snapshot", "create", "t", "v", "-o", "json")
	var s node.SnapshotStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Name != "t" || len(s.Volumes) != 1 || s.HeldSeconds <= 0 {
		t.Errorf("%+v %v", s, err)
	}
	c.want([]string{"NAME CREATED OWN VOLUMES", " 0 B v,w"}, "snapshot", "list")
	c.want([]string{`"held_seconds": `}, "snapshot", "list", "-o", "json")
	c.want([]string{"name s", "writes held for ", "VOLUME SIZE OWN IMAGE v 1 MiB 0 B disk.img w 2 MiB 0 B -"}, "snapshot", "show", "s")
	c.want([]string{"snapshots s, t", "LAYER SNAPSHOT SIZE WRITTEN ZEROED SINCE", " t 1 MiB 0 B 0 B ", " s 1 MiB 0 B 0 B "}, "volume", "show", "v")

	c.refuse(1, "snapshot s is of several volumes; name one of them, such as s/v", "snapshot", "export", "s", c.path("out"))
	c.refuse(1, "snapshot s is not of volume x; it is of: v, w", "snapshot", "export", "s/x", c.path("out"), "--force")
	c.refuse(1, "snapshot s is of several volumes", "clone", "s", "x")
	if _, err := os.Stat(c.path("out")); err == nil {
		t.Error("an export that was refused left a file")
	}
	c.want([]string{"snapshot s/v is in"}, "snapshot", "export", "s/v", c.path("out"))
	c.refuse(1, "out exists", "snapshot", "export", "t", c.path("out"))
	if got, err := os.ReadFile(c.path("out")); err != nil || !bytes.Equal(got, image) {
		t.Errorf("the export is not what the snapshot holds: %v", err)
	}
	c.want([]string{"name x", "size 2 MiB"}, "clone", "s/w", "x")
	c.want([]string{"name y", "image disk.img"}, "volume", "create", "y", "--snapshot", "t")
	c.want([]string{"volume v is as it was in snapshot t: 1 MiB"}, "snapshot", "rollback", "t")
	c.want(nil, "volume", "resize", "w", "3MiB")
	c.want([]string{"volume w is as it was in snapshot s: 2 MiB"}, "snapshot", "rollback", "s", "w")
	c.want([]string{`"name": "v"`, `"name": "w"`}, "snapshot", "rollback", "s", "-o", "json")

	c.want([]string{"volume v is removed; what it was is still in s, t"}, "volume", "rm", "v")
	c.want([]string{"v (removed) 1 MiB"}, "snapshot", "show", "t")
	c.refuse(1, "volume v, which snapshot t is of, was removed; make a new one of it with: skylun clone t/v NEWVOLUME", "snapshot", "rollback", "t")
	for _, name := range []string{"y", "x"} {
		c.want(nil, "volume", "rm", name)
	}
	c.refuse(1, "image disk.img: snapshot s is of volume v, an overlay of it; remove that first with: skylun snapshot rm s", "image", "rm", "disk.img")
	c.want([]string{"snapshot s is removed"}, "snapshot", "rm", "s")
	c.want([]string{"snapshot t is removed"}, "snapshot", "rm", "t")
	c.want([]string{"is sound"}, "check")
	c.want(nil, "image", "rm", "disk.img")
}

func TestCleaningText(t *testing.T) {
	for _, c := range []struct {
		s       node.CleaningStatus
		running bool
		want    string
	}{
		{node.CleaningStatus{}, true, ""},
		{node.CleaningStatus{Layers: 1, Bytes: 1 << 20}, true, "1 layer of removed snapshots being merged: 1 MiB"},
		{node.CleaningStatus{Layers: 2, Bytes: 1 << 20}, false, "2 layers of removed snapshots to be merged, 1 MiB: that is done while the node runs"},
		{node.CleaningStatus{Layers: 2, Problem: "disk full"}, true, "and is tried again: disk full"},
	} {
		if got := cleaningText(c.s, c.running); got != c.want && (c.s.Problem == "" || !strings.HasSuffix(got, c.want)) {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
	}
}
