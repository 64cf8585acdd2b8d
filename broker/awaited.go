package broker

import "context"

// What is here waits for an outbox.

// awaitRoom runs with mu held. It sends what has gathered first, so that
// waiting cannot be for something that only this caller would send.
func (b *outbox) awaitRoom(ctx context.Context) error {
	b.send(true)
	stop := b.broadcastAt(ctx)
	defer stop()
	for b.owed >= outboxBytes && !b.ended {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.room.Wait()
	}
	return nil
}

// answered returns once everything that is in the outbox now has been
// answered: what a question to the leader must not overtake.
func (b *outbox) answered(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.wait(ctx, func() bool { b.seal(); return len(b.messages) > 0 }) // there is no room for their batch
	last := b.next - 1
	if err != nil {
		return err
	}
	return b.wait(ctx, func() bool { return len(b.window) > 0 && b.window[0].seq <= last })
}

// published returns once every message that is in the outbox now has been
// answered, and every settlement is on its way. That is enough for a question
// that a leader does not answer before it has heard a resume in its term: it has
// heard of the settlements by then, and what is settled is nobody's from that
// moment on. Their commit may take its time.
func (b *outbox) published(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.wait(ctx, func() bool { b.send(true); return b.size() > 0 }) // there is no room for another batch
	last := b.next - 1
	if err != nil {
		return err
	}
	return b.wait(ctx, func() bool { return b.owesMessages(last) })
}

// owesMessages reports whether a batch with messages, up to last, is
// unanswered. Runs with mu held.
func (b *outbox) owesMessages(last uint64) bool {
	for i := range b.window {
		if s := &b.window[i]; s.seq <= last && len(s.messages) > 0 && !s.answered {
			return true
		}
	}
	return false
}

// wait waits until something is over. Runs with mu held.
func (b *outbox) wait(ctx context.Context, lasts func() bool) error {
	if !lasts() {
		return nil
	}
	stop := b.broadcastAt(ctx)
	defer stop()
	for lasts() && !b.ended {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.room.Wait()
	}
	return nil
}

// broadcastAt makes waiters look at ctx when it ends.
func (b *outbox) broadcastAt(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		b.mu.Lock()
		b.room.Broadcast()
		b.mu.Unlock()
	})
}
