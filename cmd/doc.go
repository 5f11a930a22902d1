// Package cmd is the command line: what the user types, the configuration
// file and the environment, turned into calls of a node.
//
// A command that needs the state of a node asks the running one over its
// socket. Where none is running it opens the data directory itself, as far as
// the command makes sense then.
//
// Exit status: 0 done, 1 failed, 2 wrong usage, which includes a wrong
// configuration. Results go to standard output, everything else to standard
// error. An error is one line for each thing that is wrong: what failed, on
// what, and what to do.
package cmd
