package main

import (
	"reflect"
	"testing"
	"time"

	"skylun/test/boottrace"
)

// TestTraceOf: two reads one after the other, then three of which the last one
// waited for the first, then one that waited for all.
func TestTraceOf(t *testing.T) {
	const ms = time.Millisecond
	got := traceOf([]done{
		{0, 512, 1 * ms, 2 * ms},
		{512, 512, 5 * ms, 6 * ms},
		{4096, 4096, 12 * ms, 30 * ms}, // recorded when they end: in another order
		{8192, 4096, 10 * ms, 15 * ms},
		{12288, 4096, 16 * ms, 25 * ms},
		{1024, 512, 31 * ms, 32 * ms},
	})
	want := boottrace.Trace{
		{{{Off: 0, Len: 512, Think: 1 * ms}, {Off: 512, Len: 512, Think: 3 * ms}}},
		{
			{{Off: 8192, Len: 4096, Think: 4 * ms}, {Off: 12288, Len: 4096, Think: 1 * ms}},
			{{Off: 4096, Len: 4096, Think: 6 * ms}},
		},
		{{{Off: 1024, Len: 512, Think: 1 * ms}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
