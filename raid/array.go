package raid

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"skylun/block"
	"skylun/raid/stripe"
)

// Errors that callers tell apart.
var (
	ErrNotExist = errors.New("no such file in the local array")
	ErrMember   = errors.New("the members do not fit") // to be set right by the operator
)

// Records is the durable memory of an array: values by key. *meta.Records is
// one.
type Records interface {
	// Load calls f, in order, with all keys that begin with prefix.
	Load(prefix string, f func(key string, value []byte) error) error
	// Store makes changes durable, all or none. A nil value removes the key.
	Store(changes map[string][]byte) error
}

// Config is what an array is made of.
type Config struct {
	Members   []MemberConfig
	Stripe    int64   // bytes, for files made from now on; 0: stripe.DefaultSize
	Chunk     int64   // bytes, of members that hand them out from now on; 0: ChunkSize
	MovePiece int64   // bytes that Rebalance moves at a time; 0: MovePiece
	Records   Records // nil: the array is one directory, without a stamp
	Boot      string  // a name for this run of the system

	// Expendable tells of a file that it may be lost with a member.
	Expendable func(name string) bool

	Log *slog.Logger // nil: nothing is logged
}

// Array is a set of members.
type Array struct {
	cfg   Config
	log   *slog.Logger
	slots []*slot // in their order

	moving  sync.Mutex // held by Rebalance, before opening
	opening sync.Mutex // held while files are opened, made and removed; before mu
	mu      sync.Mutex
	files   map[string]*body // guarded by mu: those that are open
}

// Open opens an array of one directory that has no stamp, creating it when it
// does not exist.
func Open(members []string) (*Array, error) {
	cfg := Config{}
	for _, m := range members {
		cfg.Members = append(cfg.Members, MemberConfig{Path: m})
	}
	return OpenArray(cfg)
}

// OpenArray opens an array. An ErrMember among its errors says which member is
// not what it should be, and what to do.
func OpenArray(cfg Config) (_ *Array, err error) {
	if cfg.Stripe == 0 {
		cfg.Stripe = stripe.DefaultSize
	}
	if cfg.MovePiece == 0 {
		cfg.MovePiece = MovePiece
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Array{cfg: cfg, log: cfg.Log, files: map[string]*body{}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if cfg.Records == nil {
		if len(cfg.Members) != 1 {
			return nil, fmt.Errorf("%d members: an array without records has exactly one", len(cfg.Members))
		}
		d, err := openDir(cfg.Members[0].Path)
		if err != nil {
			return nil, err
		}
		a.slots = []*slot{{Member: d, where: d.path, kind: kindDirectory}}
		return a, nil
	}
	if err := a.assemble(); err != nil {
		return nil, err
	}
	return a, a.sweep()
}

// slot returns the member of that number, or nil.
func (a *Array) slot(number int) *slot {
	for _, s := range a.slots {
		if s.number == number {
			return s
		}
	}
	return nil
}

const filePrefix = "file/"

// record returns what is durable of a file.
func (a *Array) record(name string) (r *fileRecord, err error) {
	if a.cfg.Records == nil {
		return nil, nil
	}
	err = a.cfg.Records.Load(filePrefix+name, func(key string, value []byte) error {
		if key != filePrefix+name {
			return nil
		}
		r = &fileRecord{}
		return json.Unmarshal(value, r)
	})
	if err != nil {
		return nil, fmt.Errorf("layout of %s: %w", name, err)
	}
	return r, nil
}

func (a *Array) store(name string, r *fileRecord) error {
	if err := a.storeAll(map[string]*fileRecord{name: r}); err != nil {
		return fmt.Errorf("layout of %s: %w", name, err)
	}
	return nil
}

// storeAll makes records durable, all or none; nil removes one.
func (a *Array) storeAll(all map[string]*fileRecord) error {
	if a.cfg.Records == nil {
		return nil
	}
	changes := map[string][]byte{}
	for name, r := range all {
		changes[filePrefix+name] = nil
		if r != nil {
			changes[filePrefix+name] = r.encode()
		}
	}
	return a.cfg.Records.Store(changes)
}

// sweep finishes what was being done when the process ended: files that were
// being made are removed, and pieces that nothing needs.
func (a *Array) sweep() error {
	return a.eachRecord(func(name string, r *fileRecord) error {
		switch {
		case r.Making:
			return a.Remove(name)
		case r.MakingNext:
			if err := a.removePieces(name, *r.Next); err != nil {
				return err
			}
			return a.store(name, &fileRecord{At: r.At})
		case r.Old != nil:
			if err := a.removePieces(name, *r.Old); err != nil {
				return err
			}
			return a.store(name, &fileRecord{At: r.At, Next: r.Next, Cursor: r.Cursor})
		case len(r.Also) > 0: // it was to grow onto them
			for _, p := range []*placement{&r.At, r.Next} {
				if p == nil {
					continue
				}
				l, err := locate(*p)
				if err != nil {
					return err
				}
				unused := slices.DeleteFunc(slices.Clone(r.Also), func(number int) bool { return l.used[number] > 0 })
				if err := a.removePieces(name, placement{p.Gen, []segment{{On: unused}}}); err != nil {
					return err
				}
			}
			return a.store(name, &fileRecord{At: r.At, Next: r.Next, Cursor: r.Cursor})
		}
		return nil
	})
}

// eachRecord calls f for every file that has a record.
func (a *Array) eachRecord(f func(name string, r *fileRecord) error) error {
	all := map[string]*fileRecord{}
	var names []string
	err := a.cfg.Records.Load(filePrefix, func(key string, value []byte) error {
		r := &fileRecord{}
		if err := json.Unmarshal(value, r); err != nil {
			return fmt.Errorf("layout of %s: %w", key, err)
		}
		name := strings.TrimPrefix(key, filePrefix)
		all[name], names = r, append(names, name)
		return nil
	})
	for _, name := range names {
		if err == nil {
			err = f(name, all[name])
		}
	}
	return err
}

// Names returns the names of all files. An array without records does not know
// them.
func (a *Array) Names() (names []string, err error) {
	if a.cfg.Records == nil {
		return nil, errors.New("an array without records does not know its files")
	}
	err = a.eachRecord(func(name string, _ *fileRecord) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

// segment returns how size bytes are laid out that are new now.
//
// Where somebody has asked for weights they count for all of it; else every
// member gets a part as its size is one of the array's, in zones.
func (a *Array) segment(size int64) (s segment, err error) {
	var parts []int64
	var weights []int
	weighted := false
	for _, m := range a.slots {
		total, _, err := m.Space()
		if err != nil {
			return s, err
		}
		s.On = append(s.On, m.number)
		parts, weights = append(parts, total), append(weights, m.weight)
		weighted = weighted || m.weight > 0
	}
	if s.Stripe = a.cfg.Stripe; len(s.On) == 1 {
		s.Stripe = stripe.MinSize // nothing is striped, and nothing has to be rounded up
	}
	if weighted {
		for i, w := range weights {
			parts[i] = int64(max(w, 1))
		}
	}
	for i, n := range stripe.Share(size, s.Stripe, parts) {
		s.Members = append(s.Members, stripe.Member{Size: n, Weight: weights[i]})
	}
	return s, nil
}

func (f *body) file(size int64) *File {
	n := &File{body: f}
	n.size.Store(size)
	return n
}

// newBody returns a file of which no piece is open.
func (a *Array) newBody(name string, r *fileRecord) (f *body, err error) {
	f = &body{array: a, name: name, cursor: r.Cursor}
	if f.at, err = locate(r.At); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Next != nil {
		if f.next, err = locate(*r.Next); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return f, nil
}

// attach opens or makes the pieces of a placement.
func (a *Array) attach(f *body, l *placed, create bool) error {
	parts, err := a.pieces(f.name, l, create)
	f.parts = slices.Concat(f.parts, parts)
	return err
}

// pieces opens or makes the pieces of a placement, and gives it their parts. After
// an error there may be some.
func (a *Array) pieces(name string, l *placed, create bool) (all []*part, err error) {
	parts := map[int]*part{}
	for number, used := range l.used {
		s := a.slot(number)
		if s == nil {
			return all, fmt.Errorf("%s: a part of it is on member %d, which is not there: %w", name, number, ErrNotExist)
		}
		do := s.Open
		if create {
			do = s.Create
		}
		piece, err := do(pieceName(name, l.Gen), used)
		if err != nil {
			return all, err
		}
		parts[number] = &part{Piece: piece, on: s}
		if !create { // a process that was killed may have written to it
			parts[number].dirty.Store(true)
		}
		all = append(all, parts[number])
	}
	l.connect(parts)
	return all, nil
}

// removePieces removes the pieces of a placement.
func (a *Array) removePieces(name string, p placement) error {
	var errs []error
	for _, seg := range p.Segments {
		for _, number := range seg.On {
			if s := a.slot(number); s != nil {
				errs = append(errs, s.Remove(pieceName(name, p.Gen)))
			}
		}
	}
	return errors.Join(errs...)
}

// choose finds out whether all of the file is on one member.
func (f *body) choose() {
	f.only = nil
	if number, ok := f.at.only(); ok && f.next == nil {
		for _, p := range f.at.segs[0].parts {
			if p != nil && p.on.number == number {
				f.only = p
			}
		}
	}
}

func (f *body) closeParts() error {
	var errs []error
	for _, p := range slices.Concat(f.parts, f.old) {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// keep makes f the open file of its name.
func (a *Array) keep(f *body) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.users = 1
	a.files[f.name] = f
}

// release takes one user from f and closes it when there is none left.
func (a *Array) release(f *body) error {
	a.opening.Lock() // it is not opened again while its pieces are closed
	defer a.opening.Unlock()
	return a.letGo(f)
}

func (a *Array) letGo(f *body) error {
	a.mu.Lock()
	f.users--
	last := f.users == 0
	if last && a.files[f.name] == f {
		delete(a.files, f.name)
	}
	a.mu.Unlock()
	if !last {
		return nil
	}
	return f.closeParts()
}

// Open opens a file that Create made, as one of size bytes. It may have been
// longer; what is behind size is not to be seen. It fails with ErrNotExist when
// the array does not hold it.
func (a *Array) Open(name string, size int64) (*File, error) {
	a.opening.Lock()
	defer a.opening.Unlock()
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if has := f.capacity(); has < size {
		err := memberError(fmt.Errorf("%s has %d bytes instead of %d", name, has, size))
		return nil, errors.Join(err, a.letGo(f))
	}
	return f.file(size), nil
}

func (a *Array) open(name string) (*body, error) {
	a.mu.Lock()
	f := a.files[name]
	if f != nil {
		f.users++
	}
	a.mu.Unlock()
	if f != nil {
		return f, nil
	}
	r, err := a.record(name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		d, plain := a.slots[0].Member.(*dir)
		if a.cfg.Records != nil || !plain {
			return nil, fmt.Errorf("%s: %w", name, ErrNotExist)
		}
		if r, err = d.adopt(name, a.slots[0].number); err != nil {
			return nil, err
		}
	}
	if f, err = a.newBody(name, r); err != nil {
		return nil, err
	}
	err = a.attach(f, f.at, false)
	if err == nil && f.next != nil {
		err = a.attach(f, f.next, false)
	}
	if err != nil {
		f.closeParts()
		return nil, err
	}
	f.choose()
	a.keep(f)
	return f, nil
}

// adopt returns the layout of a plain file, as it was made when an array was
// one directory.
func (d *dir) adopt(name string, number int) (*fileRecord, error) {
	f, has, err := d.open(name)
	if err != nil {
		return nil, err
	}
	size := block.Ceil(has, stripe.MinSize)
	if has < size { // nothing of it was ever to be seen
		err = f.Truncate(size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, memberError(err)
	}
	seg := segment{Stripe: stripe.MinSize, On: []int{number}, Members: []stripe.Member{{Size: size}}}
	return &fileRecord{At: placement{Segments: []segment{seg}}}, nil
}

// grow makes f as long as size, with another segment: the pieces first, so that
// a crash leaves some that are longer than anybody knows. The caller holds
// f.changing.
func (a *Array) grow(f *body, size int64) error {
	if f.gone {
		return errGone
	}
	grown := []*placed{f.at}
	if f.next != nil {
		grown = append(grown, f.next)
	}
	r := &fileRecord{Cursor: f.cursor}
	var parts []*part
	var also []int
	for i, l := range grown {
		p := placement{Gen: l.Gen, Segments: slices.Clone(l.Segments)}
		if size > l.size {
			seg, err := a.segment(size - l.size)
			if err != nil {
				return err
			}
			p.Segments = append(p.Segments, seg)
		}
		now, err := locate(p)
		if err != nil {
			return err
		}
		have := map[int]*part{}
		for _, s := range l.segs {
			for _, p := range s.parts {
				if p != nil {
					have[p.on.number] = p
				}
			}
		}
		for number, used := range now.used {
			if p := have[number]; p != nil {
				if err := p.Piece.Resize(used); err != nil {
					return err
				}
				continue
			}
			s := a.slot(number)
			if !slices.Contains(also, number) { // a crash must not leave a piece that nobody knows
				also = append(also, number)
				was := &fileRecord{At: f.at.placement, Cursor: f.cursor, Also: also}
				if f.next != nil {
					was.Next = &f.next.placement
				}
				if err := a.store(f.name, was); err != nil {
					return err
				}
			}
			piece, err := s.Create(pieceName(f.name, l.Gen), used)
			if err != nil {
				return err
			}
			have[number] = &part{Piece: piece, on: s}
			parts = append(parts, have[number])
		}
		now.connect(have)
		if grown[i] = now; i == 0 {
			r.At = p
		} else {
			r.Next = &p
		}
	}
	if err := a.store(f.name, r); err != nil {
		for _, p := range parts {
			p.Close()
		}
		return err
	}
	f.gate.close()
	defer f.gate.open()
	f.at = grown[0]
	if f.next != nil {
		f.next = grown[1]
	}
	f.parts = slices.Concat(f.parts, parts)
	f.choose()
	return nil
}

// Close releases the array. Its files are closed by those who opened them.
func (a *Array) Close() error {
	var errs []error
	for _, s := range a.slots {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
