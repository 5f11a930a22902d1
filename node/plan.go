package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/blobstore"
	"skylun/meta"
)

// plan is what is to be done for one disk of the configuration. Plans are made
// and checked for all disks before anything is changed.
type plan struct {
	spec   VolumeSpec
	place  lunPlace
	key    string               // of the disk in the configuration
	stored *meta.Volume         // nil: to be created
	info   blobstore.Info       // the image's content, when there is an image
	from   *meta.SnapshotVolume // what it is to be a copy of, nil: nothing
}

func (p *plan) size() int64 {
	switch {
	case p.from != nil:
		return p.from.Size
	case p.spec.Size == 0:
		return p.info.Size
	}
	return p.spec.Size
}

// checkNew tells whether a volume can be made as planned, and if not, by which
// of its keys.
func (p *plan) checkNew() (key string, err error) {
	if p.spec.Size == 0 && p.spec.Image == "" {
		return "size", errors.New("missing; a disk without an image needs one, such as 10GiB")
	}
	if err := validVolumeSize(Size(p.size())); err != nil {
		return "size", err
	}
	if p.info.Size > p.size() {
		return "size", fmt.Errorf("%v is less than image %s, which has %v; ask for that or more, or leave the size out", Size(p.size()), p.info.Name, Size(p.info.Size))
	}
	return "", nil
}

// checkStored tells whether a volume is as the configuration says.
func (p *plan) checkStored() (key string, err error) {
	v := p.stored
	switch {
	case p.spec.Image != v.Image && v.Image == "":
		return "image", fmt.Errorf("volume %s exists and is no overlay of an image; leave the key out, or name another volume", v.Name)
	case p.spec.Image != v.Image && p.spec.Image == "":
		return "image", fmt.Errorf("missing: volume %s exists and is an overlay of image %s; write that, or name another volume", v.Name, v.Image)
	case p.spec.Image != v.Image:
		return "image", fmt.Errorf("volume %s exists and is an overlay of image %s, not of %s; write that, or name another volume", v.Name, v.Image, p.spec.Image)
	}
	return "", nil
}

// noteSize tells of a size in the configuration that is not the volume's. The
// one in the file is what the volume is created with; a volume that was resized
// must not keep the node from starting.
func (n *Node) noteSize(p *plan) {
	switch v := p.stored; {
	case p.spec.Size == 0 || p.spec.Size == v.Size:
	case p.spec.Size > v.Size:
		n.log.Warn("the volume is smaller than the configuration says, which only counts when it is created; use skylun volume resize",
			"volume", v.Name, "size", Size(v.Size).Human(), "key", p.key+".size", "configured", Size(p.spec.Size).Human())
	default:
		n.log.Info("the volume was made larger than the configuration says", "volume", v.Name, "size", Size(v.Size).Human(),
			"key", p.key+".size", "configured", Size(p.spec.Size).Human())
	}
}

// plans returns a checked plan for every disk of the configuration, or
// everything that is in the way.
func (n *Node) plans(ctx context.Context) ([]plan, error) {
	var all []plan
	images := map[string]bool{} // whether the volumes of an image are there already
	for i, t := range n.cfg.Targets {
		for j, l := range t.LUNs {
			if l.Disk == nil {
				continue
			}
			p := plan{
				spec:  VolumeSpec{Name: l.Disk.Volume, Image: l.Disk.Image, Size: int64(l.Disk.Size)},
				place: lunPlace{iqn: t.IQN, lun: l.LUN, disk: *l.Disk},
				key:   fmt.Sprintf("targets[%d].luns[%d].disk", i, j),
			}
			v, err := n.db.Volume(p.spec.Name)
			if err == nil {
				p.stored = &v
				n.noteSize(&p)
			} else if !errors.Is(err, meta.ErrNotFound) {
				return nil, err
			}
			if p.spec.Image != "" {
				remembered, seen := images[p.spec.Image]
				images[p.spec.Image] = p.stored != nil && (remembered || !seen)
			}
			all = append(all, p)
		}
	}
	for _, place := range n.luns {
		if !place.mapped {
			continue
		}
		v, err := n.db.Volume(place.disk.Volume)
		if err != nil {
			return nil, err
		}
		if v.Image != "" {
			remembered, seen := images[v.Image]
			images[v.Image] = remembered || !seen
		}
		all = append(all, plan{spec: VolumeSpec{Name: v.Name, Image: v.Image}, place: place, stored: &v})
	}
	found := n.lookUp(ctx, images)
	var problems Problems
	var errs []error
	for i := range all {
		p := &all[i]
		key, err := "image", error(nil)
		if p.stored == nil {
			if f := found[p.spec.Image]; f.err != nil {
				if err = n.imageError(p.spec.Image, f.err); !errors.Is(err, ErrInvalid) {
					err = fmt.Errorf("volume %s: %w", p.spec.Name, err)
				}
			} else {
				p.info = f.info
				key, err = p.checkNew()
				if err != nil {
					err = Failure(ErrInvalid, err.Error())
				}
			}
		} else if key, err = p.checkStored(); err != nil {
			err = Failure(ErrInvalid, err.Error())
		} else if p.spec.Image != "" {
			key, err = "image", n.checkImage(p, found[p.spec.Image])
		}
		if errors.Is(err, ErrInvalid) {
			problems.add(p.key+"."+key, "%v", err)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return all, errors.Join(errs...)
}

// found is what the store says about an image.
type found struct {
	info blobstore.Info
	err  error
}

// rememberedTime bounds how long the start waits for the store to confirm an
// image that the node knows.
const rememberedTime = 5 * time.Second

// lookUp asks the store about images, in parallel. The value of an image says
// whether the node can do without the answer.
func (n *Node) lookUp(ctx context.Context, images map[string]bool) map[string]found {
	var mu sync.Mutex
	all := map[string]found{}
	var g errgroup.Group
	g.SetLimit(8)
	for name, remembered := range images {
		g.Go(func() error {
			ctx := ctx
			if remembered {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, rememberedTime)
				defer cancel()
			}
			info, err := n.store.Stat(ctx, name)
			mu.Lock()
			all[name] = found{info, err}
			mu.Unlock()
			return nil
		})
	}
	g.Wait()
	return all
}

// checkImage tells whether a volume can be used over its image as the store
// has it now, and sets p.info to the image as it was when the volume was made.
// A store that does not answer is no obstacle: what is local can be used, and
// the rest fails when it is read. Neither is one that has other content, if
// everything is local.
func (n *Node) checkImage(p *plan, now found) error {
	v := p.stored
	info, err := infoOf(*v)
	if err != nil {
		return err
	}
	p.info = info
	made := v.Created.Format(time.DateTime)
	switch {
	case now.err == nil && now.info.Identity == info.Identity:
		return nil
	case now.err == nil:
		err = fmt.Errorf("image %s was changed after volume %s was made of it (%s); put the old content back, or remove the volume and make a new one", v.Image, v.Name, made)
	case errors.Is(now.err, blobstore.ErrNotFound), errors.Is(now.err, blobstore.ErrFormat):
		err = fmt.Errorf("image %s, which volume %s was made of (%s), is not in the store %s any more; put the same content back, or remove the volume", v.Image, v.Name, made, n.store.URL())
	case errors.Is(now.err, blobstore.ErrChanged):
		err = fmt.Errorf("volume %s (%s) was made of an image that is not what it was: %w", v.Name, made, now.err)
	default:
		if errors.Is(now.err, context.DeadlineExceeded) {
			now.err = fmt.Errorf("no answer within %v", rememberedTime)
		}
		n.log.Warn("the store does not answer: reads of what is not local fail until it does", "volume", v.Name, "image", v.Image, "err", now.err)
		return nil
	}
	if s, known, e := n.cacheStatus(info); e == nil && known && s.Absent == 0 {
		n.log.Warn("the image is not what it was, but everything of it is local", "volume", v.Name, "image", v.Image)
		return nil
	}
	return err
}
