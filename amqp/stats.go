package amqp

import "sync/atomic"

// Stats are a Server's figures at one moment.
type Stats struct {
	Connections, Channels, Consumers        int64 // open now
	ConnectionsOpened, ConnectionsClosed    uint64
	ChannelsOpened, ChannelsClosed          uint64
	Published, Confirmed, Rejected          uint64 // messages; Confirmed and Rejected on confirm channels only
	Returned, UnroutableDropped             uint64
	Delivered, Redelivered                  uint64 // to consumers, with and without ack
	Got, GetEmpty                           uint64 // basic.get
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
	published, confirmed, rejected          atomic.Uint64
	returned, unroutableDropped             atomic.Uint64
	delivered, redelivered                  atomic.Uint64
	got, getEmpty                           atomic.Uint64
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
		Published: n.published.Load(), Confirmed: n.confirmed.Load(), Rejected: n.rejected.Load(),
		Returned: n.returned.Load(), UnroutableDropped: n.unroutableDropped.Load(),
		Delivered: n.delivered.Load(), Redelivered: n.redelivered.Load(),
		Got: n.got.Load(), GetEmpty: n.getEmpty.Load(),
		Acked: n.acked.Load(), Requeued: n.requeued.Load(), Discarded: n.discarded.Load(),
		BytesReceived: n.bytesReceived.Load(), BytesSent: n.bytesSent.Load(),
		AuthFailures: n.authFailures.Load(), ConnectionErrors: n.connectionErrors.Load(),
		Crashes: n.crashes.Load(), ChannelErrors: n.channelErrors.Load(),
	}
	st.Connections = int64(st.ConnectionsOpened - connClosed)
	st.Channels = int64(st.ChannelsOpened - chClosed)
	return st
}
