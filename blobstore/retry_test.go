package blobstore

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetry(t *testing.T) {
	try := func(t *testing.T, ctx context.Context, op func(context.Context) *failure) (time.Duration, Stats, error) {
		var n counters
		start := time.Now()
		err := retry(ctx, 20*time.Second, &n, slog.New(slog.DiscardHandler), op)
		return time.Since(start), n.stats(), err
	}
	passes := func() *failure { return passing(ErrUnavailable, "disk", "no luck") }

	synctest.Test(t, func(t *testing.T) {
		tries := 0
		took, st, err := try(t, t.Context(), func(context.Context) *failure {
			if tries++; tries < 4 {
				return passes()
			}
			return nil
		})
		// 50, 100 and 200 ms, each between half and one and a half.
		if err != nil || took < 175*time.Millisecond || took > 525*time.Millisecond || st.Errors != 3 || st.Retries != 3 {
			t.Errorf("fourth try succeeds: %v after %v, %+v", err, took, st)
		}

		tries = 0
		took, _, err = try(t, t.Context(), func(context.Context) *failure { tries++; return final(ErrAuth, "disk", "no") })
		if !errors.Is(err, ErrAuth) || tries != 1 || took != 0 {
			t.Errorf("final failure: %v after %d tries and %v", err, tries, took)
		}

		tries = 0
		took, _, err = try(t, t.Context(), func(context.Context) *failure { tries++; return passes() })
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "tries: ") || tries < 8 || took < 16*time.Second || took > 20*time.Second {
			t.Errorf("never succeeds: %v after %d tries and %v", err, tries, took)
		}

		took, _, err = try(t, t.Context(), func(ctx context.Context) *failure { <-ctx.Done(); return passes() })
		if !errors.Is(err, ErrUnavailable) || took != 20*time.Second {
			t.Errorf("hangs: %v after %v", err, took)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		took, _, err = try(t, ctx, func(context.Context) *failure { return passes() })
		if !errors.Is(err, context.DeadlineExceeded) || took != 3*time.Second {
			t.Errorf("caller leaves: %v after %v", err, took)
		}
	})

	// Those who fail together do not come back together.
	pauses := map[time.Duration]bool{}
	for range 100 {
		pauses[backoff(3)] = true
	}
	if len(pauses) < 50 {
		t.Errorf("%d different pauses of 100", len(pauses))
	}
	for n := 1; n < 100; n++ {
		if d := backoff(n); d < backoffMin/2 || d > backoffMax*3/2 {
			t.Errorf("pause %d is %v", n, d)
		}
	}
}
