package overlay

import (
	"sync/atomic"

	"skylun/block"
)

// Sets of blocks are bitmaps in chunks, which are made where they are needed.
const (
	chunkWords = 512
	chunkSpan  = chunkWords * 64 // blocks
)

type blockChunk [chunkWords]atomic.Uint64

func chunkCount(size int64) int64 { return (size/block.Size + chunkSpan - 1) / chunkSpan }

// chunkOf returns the chunk with block b, and makes it if need be.
func chunkOf(chunks []atomic.Pointer[blockChunk], b int64) *blockChunk {
	p := &chunks[b/chunkSpan]
	if chunk := p.Load(); chunk != nil {
		return chunk
	}
	p.CompareAndSwap(nil, new(blockChunk))
	return p.Load()
}

// bitsOf returns the word with block b, and the bits in it of the n blocks from
// there on that are before end.
func bitsOf(chunk *blockChunk, b, end int64) (word *atomic.Uint64, mask uint64, n int64) {
	from := b % 64
	n = min(64-from, end-b)
	return &chunk[b%chunkSpan/64], ^uint64(0) >> (64 - n) << from, n
}
