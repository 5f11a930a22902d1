package guest

import "testing"

// Run runs a script in a guest and fails the test unless it passes. The
// folder of the run is there until the test ends, and longer if it fails.
func Run(t testing.TB, script string, o Options) Result {
	t.Helper()
	if o.Output == nil {
		o.Output = t.Output()
	}
	r, err := Do(t.Context(), script, o)
	t.Cleanup(func() {
		if !t.Failed() {
			if err := r.Remove(); err != nil {
				t.Error(err)
			}
			return
		}
		dir, err := r.Keep(t.Name())
		t.Logf("kept: %s (%v)", dir, err)
	})
	switch {
	case err != nil:
		t.Fatal(err)
	case r.Status != 0:
		t.Fatalf("the script ended with status %d", r.Status)
	}
	return r
}
