package devicetest

import (
	"testing"

	"skylun/test/memdev"
)

func TestMemoryDevice(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		content := make([]byte, 3<<20+512)
		for i := range content {
			content[i] = byte(i >> 9)
		}
		return Subject{Device: memdev.Of(append([]byte(nil), content...)), Content: content}
	})
}
