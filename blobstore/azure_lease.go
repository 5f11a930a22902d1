package blobstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	azlease "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
)

// The shortest lease Azure gives is long enough: one that has run out can be
// renewed as long as nobody else has taken it or written to the blob.
const (
	leaseTime  = 15 * time.Second
	leaseRenew = leaseTime / 3
	leaseWait  = leaseTime + 5*time.Second // for the lease of a killed upload to run out
	leasePoll  = time.Second
)

// lease is the right to write to one blob. A goroutine keeps it until release.
type lease struct {
	s      *azureStore
	what   string
	client *azlease.BlobClient
	stop   context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
}

// takeLease takes the lease of a blob. When somebody has it, it waits
// as long as one that nobody renews can last.
func (s *azureStore) takeLease(ctx context.Context, name, what string) (*lease, error) {
	client, err := azlease.NewBlobClient(s.blob(name), nil)
	if err != nil {
		return nil, err
	}
	l := &lease{s: s, what: what, client: client, done: make(chan struct{})}
	for start := time.Now(); ; {
		err := s.other(ctx, l.what, func(ctx context.Context) error {
			_, err := client.AcquireLease(ctx, int32(leaseTime/time.Second), nil)
			return err
		})
		if err == nil {
			break
		}
		if !errors.Is(err, ErrBusy) {
			return nil, err
		}
		if waited := time.Since(start); waited >= leaseWait {
			return nil, &fault{ErrBusy, fmt.Sprintf("%s is being imported by another process: wait for it, or stop it", l.what)}
		} else if waited < leasePoll {
			s.log.Info("waiting for another import of the same name to end", "image", name, "at_most", leaseWait)
		}
		if err := sleep(ctx, leasePoll); err != nil {
			return nil, err
		}
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.keep(keep)
	return l, nil
}

// conditions is what a request to the blob has to state.
func (l *lease) conditions() *blob.AccessConditions {
	return &blob.AccessConditions{LeaseAccessConditions: &blob.LeaseAccessConditions{LeaseID: l.client.LeaseID()}}
}

// keep renews the lease until ctx ends. A failure is for the writers to find:
// they try to renew it as well.
func (l *lease) keep(ctx context.Context) {
	defer close(l.done)
	for sleep(ctx, leaseRenew) == nil {
		if err := l.renew(ctx); err != nil && ctx.Err() == nil {
			l.s.log.Debug("lease not renewed", "error", err)
		}
	}
}

func (l *lease) renew(ctx context.Context) error {
	return l.s.other(ctx, l.what, func(ctx context.Context) error {
		_, err := l.client.RenewLease(ctx, nil)
		return err
	})
}

// release stops the goroutine and gives the lease back.
func (l *lease) release() error {
	l.stop()
	<-l.done
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	return l.s.other(ctx, l.what, func(ctx context.Context) error {
		_, err := l.client.ReleaseLease(ctx, nil)
		return err
	})
}

// leased does op, which states the lease. When the lease has run out because
// the store could not be reached for a while, it is renewed, which the store
// allows only if nobody has touched the blob since, and op is done again.
func (u *azureUpload) leased(ctx context.Context, n *atomic.Int64, op func(context.Context, *blob.AccessConditions) error) error {
	cond := u.lease.conditions()
	for renewed := false; ; renewed = true {
		err := u.s.do(ctx, u.s.writeTotal, n, u.what, func(ctx context.Context) error { return op(ctx, cond) })
		if !errors.Is(err, errLeaseLost) || renewed {
			return err
		}
		if e := u.lease.renew(ctx); e != nil {
			if errors.Is(e, ErrBusy) || errors.Is(e, ErrNotFound) {
				return err
			}
			return e
		}
	}
}
