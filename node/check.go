package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"skylun/block"
	"skylun/meta"
	"skylun/overlay"
)

// Check returns a line for each thing that is wrong with what the node keeps
// locally. It changes nothing and can run while volumes are in use. What is found
// while snapshots, volumes and caches come and go is looked at again while none do:
// of what was just removed the files are missing.
func (n *Node) Check(context.Context) ([]string, error) {
	problems, err := n.check()
	if err == nil && len(problems) == 0 {
		return problems, nil
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	return n.check()
}

func (n *Node) check() ([]string, error) {
	problems := append([]string{}, n.db.Check()...)
	if len(problems) > 0 {
		return problems, nil
	}
	tree, err := n.db.Tree()
	if err != nil {
		return nil, err
	}
	problems = n.checkLayers(problems, tree)
	for _, v := range tree.Volumes {
		where := "volume " + v.Name
		if _, err := n.volumeStatus(tree, v); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", where, err))
		}
		if info, err := infoOf(v); err != nil {
			problems = append(problems, err.Error())
		} else if v.Image != "" && (info.Name != v.Image || info.Identity == "" || info.Size <= 0 || info.Size > v.Size) {
			problems = append(problems, fmt.Sprintf("%s: image %s is remembered as %q, %d bytes", where, v.Image, info.Name, info.Size))
		}
	}
	caches, err := n.db.Caches()
	if err != nil {
		return nil, err
	}
	for _, c := range caches {
		where := "cache of image " + c.Image
		problems = n.checkFile(problems, where, cacheFile(c.Map), c.Size)
		if c.Sums {
			problems = n.checkFile(problems, where, sumsFile(c.Map), overlay.SumsSize(c.Size))
		}
		if _, err := n.cacheStatusOf(c); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", where, err))
		}
	}
	return problems, nil
}

// checkFile looks whether a file of the array can be opened.
func (n *Node) checkFile(problems []string, where, name string, size int64) []string {
	f, err := n.array.Open(name, block.Ceil(size, block.Size))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return append(problems, fmt.Sprintf("%s: %v", where, err))
	}
	return problems
}

// CheckDataDir is Check for the data directory of a node that does not run.
// It fails when one does.
func CheckDataDir(ctx context.Context, cfg Config, log *slog.Logger) ([]string, error) {
	problems, err := meta.CheckFile(cfg.DatabasePath())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, Failure(ErrNotRunning, fmt.Sprintf("data directory %s holds no node; there is nothing to check", cfg.DataDir))
	case err != nil:
		return nil, dataDirError(cfg.DataDir, err)
	case len(problems) > 0:
		return problems, nil // opening it could make it worse
	}
	n, err := Open(ctx, cfg, false, log)
	if err != nil {
		return nil, err
	}
	problems, err = n.Check(ctx)
	return problems, errors.Join(err, n.Close(ctx))
}
