// Package scripts holds what keeps the house in order: the test command, the generators, and the test of the import graph.
package scripts
