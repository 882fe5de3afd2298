// Package refusal writes down who was refused at a port: one line for each refusal, until there are so many that the log itself
// would be the damage. Then lines are counted instead of written, and the count is written.
//
// It is not an audit log: a line may be replaced by a count. It decides nothing; the refusal has happened when it is told.
//
// Locks: a Log is safe for concurrent use. The logger is called outside its lock. It owns no goroutine, only timers, which Close
// ends.
package refusal
