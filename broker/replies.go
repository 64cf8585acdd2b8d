package broker

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// Direct replies (RabbitMQ, "Direct Reply-To"). A requester consumes
// replyQueue, which is no queue; its requests name it in their reply-to
// property, and what is published to that name goes from the publisher's node
// straight to the requester's. It passes no group and no log, is never stored,
// and is lost with either node, with the connection between them, and with the
// requester.
const (
	replyQueue  = "amq.rabbitmq.reply-to"
	replyPrefix = replyQueue + "."
)

// What a requester's client has not read is bounded as it is for a consumer
// without ack, by as much as link credit would be. More is dropped: there is no
// queue for it to wait in.
const (
	repliesMax     = dispatch.LinkMessages
	replyBytesMax  = dispatch.LinkBytes
	replyKeyBytes  = 16
	replyNameBytes = 4 + 8 + replyKeyBytes
)

// replyAddress is what a reply-to name says, in base64. Who knows the name may
// reply; nobody can guess the key.
type replyAddress struct {
	node     uint32 // the requester's, by its number in the metadata
	consumer mq.ConsumerID
	key      [replyKeyBytes]byte
}

func (a *replyAddress) String() string {
	var b [replyNameBytes]byte
	binary.BigEndian.PutUint32(b[:], a.node)
	binary.BigEndian.PutUint64(b[4:], uint64(a.consumer))
	copy(b[12:], a.key[:])
	return replyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// parseReplyAddress reads a name; false if it is none of ours.
func parseReplyAddress(name string) (a replyAddress, ok bool) {
	text, ok := strings.CutPrefix(name, replyPrefix)
	if !ok || len(text) != base64.RawURLEncoding.EncodedLen(replyNameBytes) {
		return a, false
	}
	var b [replyNameBytes]byte
	if n, err := base64.RawURLEncoding.Decode(b[:], []byte(text)); n != len(b) || err != nil {
		return a, false
	}
	a.node, a.consumer = binary.BigEndian.Uint32(b[:]), mq.ConsumerID(binary.BigEndian.Uint64(b[4:]))
	copy(a.key[:], b[12:])
	return a, true
}

// hasReplyKey reports whether a message is published to a reply-to name, with
// its own key or one that its sender added.
func hasReplyKey(c mq.Content, more [][]byte) bool {
	if len(c.Exchange()) > 0 {
		return false
	}
	return isReplyKey(c.RoutingKey()) || slices.ContainsFunc(more, isReplyKey)
}

func isReplyKey(key []byte) bool {
	return len(key) > len(replyPrefix) && string(key[:len(replyPrefix)]) == replyPrefix
}

// requester consumes direct replies for one channel.
type requester struct {
	at      replyAddress
	session *Session
	sink    mq.Sink

	// What the sink has and the client's socket has not taken.
	messages, bytes atomic.Int64

	mu      sync.Mutex // held around Deliver: replies come from several nodes at once
	waiting arrivals
	ended   bool
}

// deliver hands a reply on, unless there is no room for it.
func (r *requester) deliver(c mq.Content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.admit(len(c)):
	case len(r.waiting.line) > 0:
		r.waiting.add(newArrival(r.delivery(c), nil))
	default:
		r.sink.Deliver(r.delivery(c))
	}
}

// borrow is deliver for a reply whose body its publisher's node lends.
func (r *requester) borrow(body *borrowed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.admit(body.bytes()) {
		r.session.broker.repay(body)
		return
	}
	if r.waiting.add(newArrival(r.delivery(nil), body)) {
		go r.receive()
	}
}

// admit counts a reply in, unless there is no room for it. Runs with mu held.
func (r *requester) admit(bytes int) bool {
	if r.ended || r.messages.Load() >= repliesMax || r.bytes.Load() >= replyBytesMax {
		r.session.broker.requesters.dropped.Add(1)
		return false
	}
	r.messages.Add(1)
	r.bytes.Add(int64(bytes))
	return true
}

func (r *requester) delivery(c mq.Content) mq.Delivery {
	return mq.Delivery{Consumer: r.at.consumer, Content: c}
}

// receive hands on what waits, until nothing does. A reply whose body cannot be
// had is dropped: its publisher's node was lost.
func (r *requester) receive() {
	for {
		r.mu.Lock()
		a := r.waiting.first()
		r.mu.Unlock()
		if a == nil {
			return
		}
		err := a.fetch(r.session.broker)
		r.mu.Lock()
		switch {
		case !r.waiting.isFirst(a): // it has ended
		case err != nil:
			r.waiting.shift()
			r.drained(1, a.bytes())
			r.session.broker.requesters.dropped.Add(1)
			r.session.broker.slog.Warn("large direct reply dropped", "peer", a.body.lender, "bytes", a.bytes(), "err", err)
		default:
			r.waiting.shift()
			r.sink.Deliver(a.d)
		}
		r.mu.Unlock()
	}
}

// drained makes room again.
func (r *requester) drained(messages, bytes int) {
	r.messages.Add(-int64(messages))
	r.bytes.Add(-int64(bytes))
}

func (r *requester) end() {
	r.mu.Lock()
	r.ended = true
	r.waiting.drop(r.session.broker)
	r.mu.Unlock()
}

// requesters are those of one node.
type requesters struct {
	mu   sync.RWMutex
	byID map[mq.ConsumerID]*requester

	dropped atomic.Uint64 // replies
}

func newRequesters() *requesters { return &requesters{byID: map[mq.ConsumerID]*requester{}} }

func (rs *requesters) add(r *requester) {
	rs.mu.Lock()
	rs.byID[r.at.consumer] = r
	rs.mu.Unlock()
}

// remove ends a requester; deliveries to it have ended when it returns.
func (rs *requesters) remove(id mq.ConsumerID) {
	rs.mu.Lock()
	r := rs.byID[id]
	delete(rs.byID, id)
	rs.mu.Unlock()
	if r != nil {
		r.end()
	}
}

func (rs *requesters) get(id mq.ConsumerID) *requester {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.byID[id]
}

// find returns the requester of an address in a vhost, nil if it is gone.
func (rs *requesters) find(vhost string, consumer mq.ConsumerID, key []byte) *requester {
	r := rs.get(consumer)
	if r == nil || r.session.vhost != vhost || subtle.ConstantTimeCompare(r.at.key[:], key) == 0 {
		return nil
	}
	return r
}

// Replies starts a consumer of direct replies and says under which name they
// reach it. Whoever hears the name may reply, from any node.
func (s *Session) Replies(to mq.Sink) (mq.ConsumerID, string, error) {
	b := s.broker
	number, _ := b.run()
	r := &requester{at: replyAddress{node: number, consumer: b.consumers.number()}, session: s, sink: to}
	if _, err := rand.Read(r.at.key[:]); err != nil {
		panic(fmt.Sprintf("no randomness: %v", err)) // crypto/rand never fails since Go 1.24
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, "", errSessionClosed
	}
	b.requesters.add(r)
	if s.requesters == nil {
		s.requesters = map[mq.ConsumerID]struct{}{}
	}
	s.requesters[r.at.consumer] = struct{}{}
	return r.at.consumer, r.at.String(), nil
}

// dropRequester ends a consumer of direct replies.
func (s *Session) dropRequester(id mq.ConsumerID) {
	s.mu.Lock()
	_, mine := s.requesters[id]
	delete(s.requesters, id)
	s.mu.Unlock()
	if mine {
		s.broker.requesters.remove(id)
	}
}

// sendReplies sends a message to the requesters' nodes that its keys name, and
// says whether there are any. As in RabbitMQ since 4.2 a reply counts as routed,
// and as confirmed, if there is such a node; whether the requester still waits
// is not asked.
func (s *Session) sendReplies(ctx context.Context, c mq.Content, more [][]byte) (sent bool, err error) {
	b := s.broker
	v := b.View()
	keys := append([][]byte{c.RoutingKey()}, more...)
	for i, key := range keys {
		a, node, ok := b.replyNode(v, string(key))
		if !ok || slices.ContainsFunc(keys[:i], func(k []byte) bool { return string(k) == string(key) }) {
			continue
		}
		sent = true
		if node != b.lane.Self() {
			if err := s.sendReply(ctx, v, node, &a, c); err != nil {
				return true, err
			}
		} else if r := b.requesters.find(s.vhost, a.consumer, a.key[:]); r != nil {
			r.deliver(c)
		}
	}
	return sent, nil
}

// sendReply sends a reply to another node, or lends it the body of a large one.
func (s *Session) sendReply(ctx context.Context, v *meta.View, node mq.NodeID, a *replyAddress, c mq.Content) error {
	b := s.broker
	if len(c) <= lendAbove || levelOf(v) < levelParts {
		f := appendReply(s.vhost, a, c)
		_, err := b.replyLinks.send(ctx, node, f, len(f))
		return err
	}
	head, bodyBytes := c.Head(), len(c.Body())
	number := b.loans.lend(node, c)
	f := appendRequester([]byte{frameDirectLent}, s.vhost, a)
	f = appendLent(f, head, bodyBytes, number)
	sent, err := b.replyLinks.send(ctx, node, f, len(f)+bodyBytes)
	if !sent {
		b.loans.over(node, number)
	}
	return err
}

// replyNode finds the node that a reply-to name leads to.
func (b *Broker) replyNode(v *meta.View, name string) (a replyAddress, node mq.NodeID, ok bool) {
	if a, ok = parseReplyAddress(name); !ok {
		return a, "", false
	}
	for _, n := range v.Nodes() {
		if n.Number == a.node {
			return a, n.ID, true
		}
	}
	return a, "", false
}

func appendRequester(f []byte, vhost string, a *replyAddress) []byte {
	f = fields.AppendUint(fields.AppendString(f, vhost), uint64(a.consumer))
	return fields.AppendBytes(f, a.key[:])
}

func appendReply(vhost string, a *replyAddress, c mq.Content) []byte {
	f := append(make([]byte, 0, 48+len(vhost)+len(c)), frameDirect)
	return append(appendRequester(f, vhost, a), c...)
}

// parseRequester finds the requester that a peer means, nil if it is gone.
func (b *Broker) parseRequester(p *parser) *requester {
	vhost, consumer, key := p.Text(), mq.ConsumerID(p.Uint()), p.Bytes()
	if p.Err() != nil {
		return nil
	}
	return b.requesters.find(vhost, consumer, key)
}

// directReply takes a reply from its publisher's node.
func (b *Broker) directReply(from mq.NodeID, frameBytes int, p *parser) {
	r := b.parseRequester(p)
	c, sound := mq.ParseContent(p.Rest())
	if p.Err() != nil || !sound {
		b.slog.Warn("malformed direct reply dropped", "peer", from)
		return
	}
	if r != nil {
		r.deliver(c)
	} else {
		b.requesters.dropped.Add(1)
	}
	b.replyLinks.took(from, frameBytes)
}

// directLent takes a reply whose body its publisher's node lends.
func (b *Broker) directLent(from mq.NodeID, frameBytes int, p *parser) {
	r := b.parseRequester(p)
	body := parseBorrowed(from, p)
	if p.Err() != nil {
		b.slog.Warn("malformed direct reply dropped", "peer", from)
		return
	}
	if r != nil {
		r.borrow(body)
	} else {
		b.requesters.dropped.Add(1)
		b.repay(body)
	}
	b.replyLinks.took(from, frameBytes+body.bodyBytes)
}

// requesterLives asks the node of a reply-to name whether somebody waits there.
// A node that does not answer has nobody.
func (s *Session) requesterLives(ctx context.Context, name string) bool {
	b := s.broker
	a, node, ok := b.replyNode(b.View(), name)
	if !ok {
		return false
	}
	if node == b.lane.Self() {
		return b.requesters.find(s.vhost, a.consumer, a.key[:]) != nil
	}
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	r, err := b.calls.ask(ctx, node, callRequester, metaGroup, appendRequester(nil, s.vhost, &a), nil)
	return err == nil && len(r) == 1 && r[0] != 0
}

// changeReply carries out what is asked of replyQueue and of reply-to names as
// if they were queues; mine is false if op is about neither.
func (s *Session) changeReply(ctx context.Context, op mq.Op) (r mq.Reply, mine bool, err error) {
	switch op := op.(type) {
	case mq.QueueDeclare: // passive whatever it says: it tells whether the requester lives
		name := clean(op.Name)
		if !strings.HasPrefix(name, replyQueue) {
			return r, false, nil
		}
		if name != replyQueue && !s.requesterLives(ctx, name) {
			return r, true, meta.NoQueue(s.vhost, name)
		}
		return mq.Reply{Queue: name, Consumers: 1}, true, nil
	case mq.QueueBind:
		return r, isReplyName(op.Queue), errBindReply
	case mq.QueueUnbind:
		return r, isReplyName(op.Queue), errBindReply
	case mq.QueuePurge:
		if !isReplyName(op.Name) {
			return r, false, nil
		}
		return mq.Reply{Queue: clean(op.Name)}, true, s.readableReply(clean(op.Name))
	}
	return r, false, nil
}

var errBindReply = mq.Errorf(mq.AccessRefused, "cannot bind or unbind to a volatile (direct reply-to) queue")

func isReplyName(name string) bool { return strings.HasPrefix(clean(name), replyPrefix) }

// readableReply refuses a reply-to name that leads nowhere, or that the client
// may not read.
func (s *Session) readableReply(name string) error {
	if err := s.topology.Access().Read(queueResource, name); err != nil {
		return err
	}
	if _, _, ok := s.broker.replyNode(s.broker.View(), name); !ok {
		return meta.NoQueue(s.vhost, name)
	}
	return nil
}

// refuseReply refuses to take messages from a reply-to name: its requester has
// them sent, and nobody else. format says so with the name and the vhost.
func (s *Session) refuseReply(name string, code mq.Code, format string) error {
	if !isReplyName(name) {
		return nil
	}
	name = clean(name)
	if err := s.readableReply(name); err != nil {
		return err
	}
	return mq.Errorf(code, format, name, s.vhost)
}
