package amqp

import "sync/atomic"

// Stats are a Server's figures at one moment.
type Stats struct {
	Connections, Channels, Consumers        int64 // open now
	ConnectionsOpened, ConnectionsClosed    uint64
	ChannelsOpened, ChannelsClosed          uint64
	Published, PublishedConfirm             uint64 // messages; the latter are those of the former on confirm channels
	Confirmed, Rejected                     uint64 // messages on confirm channels
	Returned, UnroutableDropped             uint64
	DeliveredAutoAck, DeliveredManualAck    uint64 // to consumers
	GotAutoAck, GotManualAck, GetEmpty      uint64 // basic.get
	Redelivered                             uint64 // of all of these
	QueuesDeclared                          uint64 // also those that existed; not passively
	Acked, Requeued, Discarded              uint64 // messages, not methods
	BytesReceived, BytesSent                uint64 // on sockets
	AuthFailures, ConnectionErrors, Crashes uint64
	ChannelErrors                           uint64
}

// counters are the Server's own; any goroutine adds to them.
type counters struct {
	consumers                               atomic.Int64
	connectionsOpened, connectionsClosed    atomic.Uint64
	channelsOpened, channelsClosed          atomic.Uint64
	published, publishedConfirm             atomic.Uint64 // disjoint: one addition per message
	confirmed, rejected                     atomic.Uint64
	returned, unroutableDropped             atomic.Uint64
	deliveredAutoAck, deliveredManualAck    atomic.Uint64
	gotAutoAck, gotManualAck, getEmpty      atomic.Uint64
	redelivered                             atomic.Uint64
	queuesDeclared                          atomic.Uint64
	acked, requeued, discarded              atomic.Uint64
	bytesReceived, bytesSent                atomic.Uint64
	authFailures, connectionErrors, crashes atomic.Uint64
	channelErrors                           atomic.Uint64
}

// Stats copies the figures. They are read one by one, not at one instant.
func (s *Server) Stats() Stats {
	n := &s.count
	// Closed before opened, so that what is open is never negative.
	connClosed, chClosed := n.connectionsClosed.Load(), n.channelsClosed.Load()
	st := Stats{
		Consumers:         n.consumers.Load(),
		ConnectionsOpened: n.connectionsOpened.Load(), ConnectionsClosed: connClosed,
		ChannelsOpened: n.channelsOpened.Load(), ChannelsClosed: chClosed,
		PublishedConfirm: n.publishedConfirm.Load(), Confirmed: n.confirmed.Load(), Rejected: n.rejected.Load(),
		Returned: n.returned.Load(), UnroutableDropped: n.unroutableDropped.Load(),
		DeliveredAutoAck: n.deliveredAutoAck.Load(), DeliveredManualAck: n.deliveredManualAck.Load(),
		GotAutoAck: n.gotAutoAck.Load(), GotManualAck: n.gotManualAck.Load(), GetEmpty: n.getEmpty.Load(),
		Redelivered: n.redelivered.Load(), QueuesDeclared: n.queuesDeclared.Load(),
		Acked: n.acked.Load(), Requeued: n.requeued.Load(), Discarded: n.discarded.Load(),
		BytesReceived: n.bytesReceived.Load(), BytesSent: n.bytesSent.Load(),
		AuthFailures: n.authFailures.Load(), ConnectionErrors: n.connectionErrors.Load(),
		Crashes: n.crashes.Load(), ChannelErrors: n.channelErrors.Load(),
	}
	st.Published = st.PublishedConfirm + n.published.Load()
	st.Connections = int64(st.ConnectionsOpened - connClosed)
	st.Channels = int64(st.ChannelsOpened - chClosed)
	return st
}
