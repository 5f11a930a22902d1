package cmd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"skylun/node"
	"skylun/plan"
)

// planSpec is what "local plan" is asked for.
type planSpec struct {
	size       sizeFlag
	iops       int64
	throughput rateFlag
	catalogue  string
	kinds      []string
	opts       plan.Options
	nodeRate   rateFlag
}

func newPlan(e *env) *cobra.Command {
	s := planSpec{}
	c := &cobra.Command{
		Use:   "plan --size SIZE",
		Short: "Pick the cheapest disks for local data",
		Long: `Pick the cheapest set of disks that holds SIZE of local data and is as fast as asked
for, striped (RAID-0) over all of them, from a catalogue of disks with their prices. Without
--catalogue it is the one that comes with skylun, of Azure's disks with example prices:
"skylun local catalogue" prints it. Disks at hand are measured by "skylun local bench".`,
		Example: `  skylun local plan --size 4TiB --iops 20000 --throughput 800MB/s
  skylun local plan --size 4TiB --iops 20000 --kinds 'premium-*' --mixed`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return e.plan(s) },
	}
	f := c.Flags()
	f.Var(&s.size, "size", "bytes of layers and caches that have to fit, such as 4TiB")
	f.Int64Var(&s.iops, "iops", 0, "operations of 4 KiB a second, reads and writes together")
	f.Var(&s.throughput, "throughput", "bytes a second, such as 800MB/s")
	f.StringVar(&s.catalogue, "catalogue", "", "`file` with the disks there are")
	f.StringSliceVar(&s.kinds, "kinds", nil, "only kinds whose name matches one of these `patterns`, such as 'premium-*'")
	f.IntVar(&s.opts.MaxMembers, "max-members", plan.DefaultMembers, "how many disks the node can have")
	f.BoolVar(&s.opts.Mixed, "mixed", false, "also sets of different kinds, with weights")
	f.BoolVar(&s.opts.Ephemeral, "ephemeral", false, "also disks that lose their content with the machine: for caches only")
	f.Int64Var(&s.opts.NodeIOPS, "node-iops", 0, "what the machine allows to all attached disks together; 0: any")
	f.Var(&s.nodeRate, "node-throughput", "likewise")
	f.IntVar(&s.opts.Results, "results", plan.DefaultResults, "how many sets to show")
	return c
}

// planResult is the result as JSON.
type planResult struct {
	Demand    planArray     `json:"demand"`
	Catalogue planCatalogue `json:"catalogue"`
	Exact     bool          `json:"exact"` // there is none cheaper
	Plans     []planSet     `json:"plans"`
}

type planCatalogue struct {
	Name     string `json:"name"`
	Date     string `json:"date"`
	Region   string `json:"region,omitempty"`
	Currency string `json:"currency"`
	Period   string `json:"period"`
	Prices   string `json:"prices,omitempty"`
}

// planArray is what something holds and does.
type planArray struct {
	Size           int64 `json:"size"`
	IOPS           int64 `json:"iops"`
	BytesPerSecond int64 `json:"bytes_per_second"`
}

type planSet struct {
	planArray
	Price   float64      `json:"price"`
	Limit   string       `json:"limit"` // what there is least to spare of
	Slack   float64      `json:"slack"` // how much, as a part of the demand
	Members []planMember `json:"members"`
	Config  string       `json:"config"`
}

type planMember struct {
	Kind   string `json:"kind"`
	Count  int    `json:"count"`
	Weight int    `json:"weight,omitempty"` // 0: not needed
	planArray
	Price float64 `json:"price"`
	Note  string  `json:"note,omitempty"`
}

func (e *env) plan(s planSpec) error {
	if s.size == 0 {
		return usagef("--size: how much has to fit? Such as --size 4TiB")
	}
	c, err := s.load()
	if err != nil {
		return err
	}
	want := plan.Demand{Size: int64(s.size), IOPS: s.iops, Bytes: int64(s.throughput)}
	s.opts.NodeBytes = int64(s.nodeRate)
	if s.opts.MaxMembers < 1 || s.opts.Results < 1 { // zero is a default to package plan
		return usagef("--max-members and --results: want 1 or more")
	}
	r, err := c.Search(want, s.opts)
	if err != nil {
		return usagef("%v", err)
	}
	if len(r.Plans) == 0 {
		return s.impossible(c, r)
	}
	result := planResult{
		Demand:    planArray{want.Size, want.IOPS, want.Bytes},
		Catalogue: planCatalogue{c.Name, c.Date, c.Region, c.Currency, c.Period, c.Prices},
		Exact:     r.Exact,
	}
	for i := range r.Plans {
		result.Plans = append(result.Plans, showPlan(&r.Plans[i]))
	}
	return e.print(result, func(t *table) { printPlans(t, c, r) })
}

// load reads the catalogue, as far as it is asked for.
func (s *planSpec) load() (*plan.Catalogue, error) {
	text, name := plan.Example(), "the catalogue"
	if s.catalogue != "" {
		var err error
		if text, err = os.ReadFile(s.catalogue); err != nil {
			return nil, usageError{fmt.Errorf("--catalogue: %w", err)}
		}
		name = s.catalogue
	}
	c, err := plan.Parse(text)
	if err != nil {
		return nil, usageError{inFile(name, err)}
	}
	if len(s.kinds) == 0 {
		return c, nil
	}
	for _, p := range s.kinds {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usagef("--kinds: %q is not a pattern", p)
		}
	}
	c.Kinds = slices.DeleteFunc(c.Kinds, func(k plan.Kind) bool {
		return !slices.ContainsFunc(s.kinds, func(p string) bool { ok, _ := path.Match(p, k.Name); return ok })
	})
	if len(c.Kinds) == 0 {
		return nil, usagef("--kinds: no kind in %s matches %s", name, strings.Join(s.kinds, ", "))
	}
	return c, nil
}

// inFile says of each line of err which file it is about.
func inFile(name string, err error) error {
	var lines []error
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, fmt.Errorf("%s: %s", name, line))
		}
	}
	return errors.Join(lines...)
}

// impossible says in one line what comes nearest.
func (s *planSpec) impossible(c *plan.Catalogue, r plan.Result) error {
	if r.Nearest == nil {
		return fmt.Errorf("no kind of disk in the catalogue may be used: all lose their content with the machine; --ephemeral takes them, for caches")
	}
	p := r.Nearest
	text := fmt.Sprintf("no set of up to %s does it; nearest is %s with %s, %d IOPS and %s for %s, %s of what is asked for",
		count(s.opts.MaxMembers, "disk"), describePlan(p), node.Size(p.Size).Human(), p.IOPS, diskRate(p.Bytes), money(c, p.Price),
		fmt.Sprintf("%.0f%%", math.Floor(100*r.Fraction)))
	if r.Members > 0 {
		text += fmt.Sprintf("; it can be done with --max-members %d", r.Members)
	} else if strings.HasSuffix(p.Limit, "of the node") {
		text += "; the machine allows no more"
	}
	return errors.New(text)
}

func money(c *plan.Catalogue, price float64) string {
	return fmt.Sprintf("%s %.2f a %s", c.Currency, price, c.Period)
}

// describePlan names the members.
func describePlan(p *plan.Plan) string {
	var parts []string
	for _, m := range p.Members {
		text := fmt.Sprintf("%d x %s", m.Count, m.Kind.Name)
		if m.Kind.Provisioned != nil {
			text += fmt.Sprintf(" (%s, %d IOPS, %s)", node.Size(m.Size), m.IOPS, diskRate(m.Bytes))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " + ")
}

func showPlan(p *plan.Plan) planSet {
	s := planSet{planArray: planArray{p.Size, p.IOPS, p.Bytes}, Price: cents(p.Price), Limit: p.Limit, Slack: p.Slack, Config: planConfig(p)}
	for _, m := range p.Members {
		pm := planMember{Kind: m.Kind.Name, Count: m.Count, planArray: planArray{m.Size, m.IOPS, m.Bytes}, Price: cents(m.Price), Note: m.Kind.Note}
		if p.Weighted {
			pm.Weight = m.Weight
		}
		s.Members = append(s.Members, pm)
	}
	return s
}

// cents leaves no more digits than a price has.
func cents(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// planConfig is what to paste into the configuration.
func planConfig(p *plan.Plan) string {
	var b strings.Builder
	b.WriteString("local:\n  members:\n")
	n := 0
	for _, m := range p.Members {
		for range m.Count {
			n++
			if p.Weighted {
				fmt.Fprintf(&b, "    - {path: /mnt/disk%d, weight: %d}  # %s\n", n, m.Weight, m.Kind.Name)
			} else {
				fmt.Fprintf(&b, "    - /mnt/disk%d  # %s\n", n, m.Kind.Name)
			}
		}
	}
	return b.String()
}

func printPlans(t *table, c *plan.Catalogue, r plan.Result) {
	t.row("DISKS", "SIZE", "IOPS", "THROUGHPUT", strings.ToUpper("price/"+c.Period), "LEAST TO SPARE")
	for i := range r.Plans {
		p := &r.Plans[i]
		t.row(describePlan(p), node.Size(p.Size).Human(), p.IOPS, diskRate(p.Bytes), fmt.Sprintf("%s %.2f", c.Currency, p.Price),
			fmt.Sprintf("%s, %.0f%%", p.Limit, 100*p.Slack))
	}
	t.row()
	switch {
	case !r.Exact:
		t.row("# The search was cut off: there may be a cheaper set.")
	default:
		t.row("# The first one is the cheapest there is in this catalogue.")
	}
	source := "# " + c.Name + " of " + c.Date
	if c.Region != "" {
		source += ", " + c.Region
	}
	if c.Prices == plan.ExamplePrices {
		source += ". THE PRICES ARE EXAMPLES: put yours into the catalogue."
	}
	t.row(source)
	t.row()
	for line := range strings.Lines(planConfig(&r.Plans[0])) {
		t.row(strings.TrimRight(line, "\n"))
	}
}
