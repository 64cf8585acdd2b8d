// Package tidy is the gate: its test reads every Go file of the module and
// fails when one breaks a rule of the house that a program can check. The
// tables of rules stand here; what the rooms do it does not know.
//
// An exception is a change of a table here, with its reason beside it, never a
// comment in the code that breaks the rule.
package tidy
