package prefetch

import "math"

// What is fetched though nobody has asked for it is a guess: what lies beside
// what a reader waits for, and what is ahead of a stream. A guess is open until
// somebody reads it; those that nobody ever reads were waste. So how many
// may be open bounds the waste: little at first, and more for what is read.
const (
	besideFirst = 128 << 10
	besidePart  = 4 // of what is left for guesses beside readers, one read takes that part
	aheadFirst  = 512 << 10
	guessShare  = 64 // of what is read, for each of the two

	// GuessMemory is how many bytes are read until half of what was read and
	// of what is open is forgotten: readers do not stay as they were.
	GuessMemory = 64 << 20
)

// Unbounded is what may be guessed where all of the image is wanted anyway.
const Unbounded = math.MaxInt64 / 2

// SpareBeside returns how much one read may take along, when so much was read of
// what was fetched, and so much of what others took along was not.
func SpareBeside(read, open int64) int64 {
	return (besideFirst + read/guessShare - open) / besidePart
}

// SpareAhead is that for streams: full is what is under way when the link is full.
func SpareAhead(read, open, full int64) int64 {
	return max(aheadFirst, full*3/8) + read/guessShare - open
}
