// Package segment is files of numbered records that are only ever appended to: how a record is framed, how a file begins and what it is
// named, and how the end that a crash left is told from damage. The lifecycle log (vault/journal) and the usage log (vault/usage)
// are made of such files.
//
// It knows nothing of what records say, and of their hashes only that each has one beside it: what they cover is their owner's
// business. So whoever seals records one day has this one place to do it in: data goes to the disk in Append and comes back in read.
//
// A File is not safe for concurrent use; a copy of it reads what it held when it was copied.
package segment
