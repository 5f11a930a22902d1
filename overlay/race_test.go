//go:build race

package overlay

// raceEnabled tells that the tests run several times slower.
const raceEnabled = true
