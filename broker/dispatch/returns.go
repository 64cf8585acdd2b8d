package dispatch

import "warren/mq"

// returns is a min-heap of seqs that went back. It may hold seqs that are not
// ready any more: the table of what is outstanding says whether one is.
type returns []mq.Seq

func (h *returns) push(seq mq.Seq) {
	*h = append(*h, seq)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up] <= s[i] {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *returns) pop() {
	s := *h
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && s[down+1] < s[down] {
			down++
		}
		if s[i] <= s[down] {
			break
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
	if n == 0 && cap(s) > slotsKept {
		*h = nil
	}
}
