// Package clusterpb is the generated form of what nodes say to each other on the cluster port. It is used by package cluster only.
package clusterpb
