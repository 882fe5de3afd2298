// Package usage is a node's usage log: one record for each use of a private or secret key whose result this node let go, or held back at
// the last moment. It is on this node's disk and nowhere else, in segments of chained records.
//
// It is not the lifecycle log: that one is replicated and says what keys are; this one says what they did. It decides nothing. Who calls it
// decides when a use may be recorded, and what must wait for that.
//
// Invariants
//
//   - Records have consecutive numbers, and the hash beside each covers the one before: what was changed, taken out or put in is found by
//     Walk, and so is what is missing at the front, because every segment begins with a link to the one before. What was cut off at the end
//     is found only by whoever knows how long the log was.
//   - What Record says is durable has been fsynced. Everything else is durable within FlushEvery, or when the buffer is half full.
//   - Nothing is dropped: a full buffer makes callers wait. Only when the log has reached its size do records of buffered uses stay out;
//     how many is counted, and itself recorded as soon as there is room. Durable ones are refused with ErrFull.
//   - An error of a write or an fsync is final. Run returns it, and the process ends.
//   - A torn end (a crash) is cut off at the next start, and the start's own record says how much. A log that is damaged elsewhere in its
//     last segment does not open.
//
// Run writes; it is the only goroutine. The lock is never held while the disk works.
package usage
