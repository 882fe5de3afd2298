//go:build race

package node

// raceDetector makes everything five to ten times slower.
const raceDetector = true
