package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// printLive prints a line each second until ctx ends: over the last one on a
// terminal.
func printLive(ctx context.Context, r *benchRun, begin time.Time, out io.Writer, terminal bool) {
	tick := time.NewTicker(benchTick)
	defer tick.Stop()
	var published, confirmed, consumed uint64
	last := begin
	for {
		select {
		case <-ctx.Done():
			if terminal {
				fmt.Fprint(out, "\r\x1b[K")
			}
			return
		case now := <-tick.C:
			p, c, d := r.tally.published.Load(), r.tally.confirms.Load(), r.tally.consumed.Load()
			s := now.Sub(last).Seconds()
			line := fmt.Sprintf("%4.0fs  published %8.0f/s  confirmed %8.0f/s  consumed %8.0f/s", now.Sub(begin).Seconds(),
				float64(p-published)/s, float64(c-confirmed)/s, float64(d-consumed)/s)
			if terminal {
				line = "\r" + line + "  " + bar(now.Sub(begin), r.time) + "\x1b[K"
			} else {
				line += "\n"
			}
			fmt.Fprint(out, line)
			published, confirmed, consumed, last = p, c, d, now
		}
	}
}

// bar is how far the publishing is.
func bar(done, all time.Duration) string {
	const width = 20
	full := int(min(1, float64(done)/float64(all)) * width)
	b := make([]byte, 0, width+2)
	b = append(b, '[')
	for i := range width {
		if i < full {
			b = append(b, '#')
		} else {
			b = append(b, '.')
		}
	}
	return string(append(b, ']'))
}

// printResult prints what the run came to.
func printResult(out io.Writer, r *benchRun, published, total time.Duration) {
	t := r.tally
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	rate := func(what string, n uint64, in time.Duration) {
		fmt.Fprintf(w, "%s\t%d\t%.0f/s\t%.1f MB/s\n", what, n, float64(n)/in.Seconds(), float64(n)*float64(r.sizeBytes)/1e6/in.Seconds())
	}
	rate("published", t.published.Load(), published)
	if r.window > 0 {
		rate("confirmed", t.confirms.Load(), published)
	}
	if r.benchOptions.consumers > 0 {
		rate("consumed", t.consumed.Load(), total)
	}
	fmt.Fprintln(w, "\n\tp50\tp95\tp99\tp99.9\tmax")
	row := func(what string, h *histogram) {
		fmt.Fprint(w, what)
		for _, d := range h.percentiles(0.5, 0.95, 0.99, 0.999, 1) {
			fmt.Fprintf(w, "\t%s", shortDuration(d))
		}
		fmt.Fprintln(w)
	}
	if r.window > 0 {
		row("confirm", &r.confirm)
	}
	if r.benchOptions.consumers > 0 {
		row("end to end", &r.endToEnd)
	}
	w.Flush()
	if r.benchOptions.consumers > 0 {
		fmt.Fprintf(out, "\nlost %d, duplicates %d, rejected %d\n", t.lost(), t.duplicates.Load(), t.nacked.Load())
	}
}

// shortDuration shows three digits or so.
func shortDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.0fµs", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}
