//go:build guest

package guest

import "testing"

func TestCluster(t *testing.T) { script(t, "cluster.sh", Options{}) }

func TestResize(t *testing.T) { script(t, "resize.sh", Options{}) }
