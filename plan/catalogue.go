package plan

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"

	"go.yaml.in/yaml/v3"
)

// Catalogue is what disks there are.
type Catalogue struct {
	Name     string   `yaml:"catalogue" json:"catalogue"`
	Date     string   `yaml:"date" json:"date"` // when its figures were published
	Region   string   `yaml:"region,omitempty" json:"region,omitempty"`
	Currency string   `yaml:"currency" json:"currency"`
	Period   string   `yaml:"period" json:"period"` // what prices are for, such as month
	Prices   string   `yaml:"prices,omitempty" json:"prices,omitempty"`
	Sources  []string `yaml:"sources,omitempty" json:"sources,omitempty"`
	Kinds    []Kind   `yaml:"kinds" json:"kinds"`
}

// ExamplePrices is the value of Prices in a catalogue whose prices are to be
// replaced by those that hold.
const ExamplePrices = "example"

// Kind is a kind of disk. Its performance is fixed, or bought apart from its
// size.
type Kind struct {
	Name string `yaml:"name" json:"name"`

	SizeGiB   int64   `yaml:"size_gib,omitempty" json:"size_gib,omitempty"`
	IOPS      int64   `yaml:"iops,omitempty" json:"iops,omitempty"`
	MBPerS    float64 `yaml:"mb_per_s,omitempty" json:"mb_per_s,omitempty"` // of 1,000,000 bytes
	Price     float64 `yaml:"price" json:"price"`
	LatencyMS float64 `yaml:"latency_ms,omitempty" json:"latency_ms,omitempty"` // for people

	Provisioned *Provisioned `yaml:"provisioned,omitempty" json:"provisioned,omitempty"`

	Max       int    `yaml:"max,omitempty" json:"max,omitempty"`             // how many a node can have; 0: any number
	Local     bool   `yaml:"local,omitempty" json:"local,omitempty"`         // in the node: its limit for attached disks does not count
	Ephemeral bool   `yaml:"ephemeral,omitempty" json:"ephemeral,omitempty"` // its content is gone when the machine is
	Note      string `yaml:"note,omitempty" json:"note,omitempty"`
}

// Provisioned is a kind of disk that is bought in any size and, apart from
// that, any performance.
type Provisioned struct {
	SizeGiB Bounds `yaml:"size_gib" json:"size_gib"`
	IOPS    Rate   `yaml:"iops" json:"iops"`         // PerUnit: of GiB
	MBPerS  Rate   `yaml:"mb_per_s" json:"mb_per_s"` // PerUnit: of IOPS
	Price   struct {
		GiB    float64 `yaml:"gib" json:"gib"`
		IOPS   float64 `yaml:"iops" json:"iops"`         // of each beyond the free ones
		MBPerS float64 `yaml:"mb_per_s" json:"mb_per_s"` // likewise
	} `yaml:"price" json:"price"`
}

// Bounds are the least and the most there can be.
type Bounds struct {
	Min int64 `yaml:"min" json:"min"`
	Max int64 `yaml:"max" json:"max"`
}

// Rate is a performance that is bought.
type Rate struct {
	Min     int64   `yaml:"min" json:"min"`
	Max     int64   `yaml:"max" json:"max"`
	Free    int64   `yaml:"free" json:"free"`         // comes with the size
	PerUnit float64 `yaml:"per_unit" json:"per_unit"` // the most there can be, for each of what bounds it; Min can always be

	AboveGiB int64 `yaml:"above_gib,omitempty" json:"above_gib,omitempty"` // more than Min takes a disk larger than this
}

//go:embed azure.yaml
var azure []byte

// Example returns the text of a catalogue of Azure's disks.
func Example() []byte { return bytes.Clone(azure) }

// Parse reads a catalogue in YAML. Unknown keys are errors, and all that is
// wrong is told at once.
func Parse(text []byte) (*Catalogue, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	c := &Catalogue{}
	if err := d.Decode(c); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("is empty")
		}
		return nil, err
	}
	if c.Period == "" {
		c.Period = "month"
	}
	return c, c.validate()
}

// The bounds of what a catalogue can say: so that no sum or product overflows.
const (
	maxGiB  = 1 << 30 // an EiB
	maxRate = 1e12
)

func (c *Catalogue) validate() error {
	var problems []error
	seen := map[string]bool{}
	if len(c.Kinds) == 0 {
		problems = append(problems, errors.New("kinds: there is none"))
	}
	for i, k := range c.Kinds {
		bad := func(key, format string, args ...any) {
			problems = append(problems, fmt.Errorf("kind %q: %s: %s", k.Name, key, fmt.Sprintf(format, args...)))
		}
		if k.Name == "" {
			problems = append(problems, fmt.Errorf("kind %d has no name", i+1))
		}
		if seen[k.Name] {
			bad("name", "there is another one")
		}
		seen[k.Name] = true
		if k.Max < 0 {
			bad("max", "%d is negative", k.Max)
		}
		if !good(k.Price, maxRate) {
			bad("price", "%v is none", k.Price)
		}
		if k.Provisioned != nil {
			if k.SizeGiB != 0 || k.IOPS != 0 || k.MBPerS != 0 || k.Price != 0 {
				bad("provisioned", "has size_gib, iops, mb_per_s and price of its own")
			}
			k.Provisioned.validate(bad)
			continue
		}
		if k.SizeGiB <= 0 || k.SizeGiB > maxGiB {
			bad("size_gib", "want 1 to %d", maxGiB)
		}
		if k.IOPS <= 0 || k.IOPS > maxRate {
			bad("iops", "want 1 or more")
		}
		if !good(k.MBPerS, maxRate) || k.MBPerS < 0.001 {
			bad("mb_per_s", "want more than 0")
		}
	}
	return errors.Join(problems...)
}

func good(v, limit float64) bool { return !math.IsNaN(v) && v >= 0 && v <= limit }

func (p *Provisioned) validate(bad func(key, format string, args ...any)) {
	if p.SizeGiB.Min < 1 || p.SizeGiB.Max < p.SizeGiB.Min || p.SizeGiB.Max > maxGiB {
		bad("provisioned.size_gib", "want 1 ≤ min ≤ max ≤ %d", maxGiB)
	}
	for _, r := range []struct {
		key string
		Rate
	}{{"iops", p.IOPS}, {"mb_per_s", p.MBPerS}} {
		if r.Min < 1 || r.Max < r.Min || r.Max > maxRate || r.Free < 0 || r.Free > maxRate {
			bad("provisioned."+r.key, "want 1 ≤ min ≤ max, and free from 0 on")
		}
		if r.AboveGiB < 0 || r.AboveGiB >= p.SizeGiB.Max {
			bad("provisioned."+r.key+".above_gib", "want less than the largest size")
		}
		if !good(r.PerUnit, maxRate) || r.PerUnit < 1e-6 {
			bad("provisioned."+r.key+".per_unit", "want more than 0")
		}
	}
	for key, v := range map[string]float64{"gib": p.Price.GiB, "iops": p.Price.IOPS, "mb_per_s": p.Price.MBPerS} {
		if !good(v, maxRate) {
			bad("provisioned.price."+key, "%v is none", v)
		}
	}
}
