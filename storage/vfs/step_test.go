package vfs

import (
	"errors"
	"slices"
	"testing"
)

// ranges is a File that notes what is written out, and fails at one place.
type ranges struct {
	File
	asked  [][2]int64
	failAt int64
}

var errNo = errors.New("no")

func (r *ranges) WriteOut(from, to int64) error {
	r.asked = append(r.asked, [2]int64{from, to})
	if from == r.failAt {
		return errNo
	}
	return nil
}

func TestALargeRangeIsWrittenOutInSteps(t *testing.T) {
	r := &ranges{failAt: -1}
	if err := WriteOut(r, 10, 2*StepBytes+20); err != nil {
		t.Fatal(err)
	}
	want := [][2]int64{{10, StepBytes + 10}, {StepBytes + 10, 2*StepBytes + 10}, {2*StepBytes + 10, 2*StepBytes + 20}}
	if !slices.Equal(r.asked, want) {
		t.Errorf("asked for %v, want %v", r.asked, want)
	}
	if r = (&ranges{}); WriteOut(r, 10, 10) != nil || len(r.asked) > 0 {
		t.Errorf("of nothing it asked for %v", r.asked)
	}
}

func TestAFailedStepIsTheLast(t *testing.T) {
	r := &ranges{failAt: StepBytes}
	if err := WriteOut(r, 0, 3*StepBytes); !errors.Is(err, errNo) {
		t.Errorf("got %v", err)
	}
	if len(r.asked) != 2 {
		t.Errorf("asked for %v", r.asked)
	}
}
