// Package node builds a Warren node out of the other rooms, starts it and
// stops it. It is the only room that sees all others, and it does none of
// their work. It knows no command line, no environment and no configuration
// file: a Config says everything. Environment shows it under that file's keys.
package node
