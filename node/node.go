package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"warren/amqp"
	"warren/broker"
	"warren/cluster"
	"warren/fsm/meta"
	"warren/management"
	"warren/mq"
)

// Version is what the node tells clients and metrics.
const Version = "0.1.0"

// Timing of a node's own work.
const (
	tick         = 100 * time.Millisecond // how often groups and sessions are looked after
	sweepEvery   = time.Minute
	handOverWait = 3 * time.Second // for leaderships, when the node stops
	clientsWait  = 5 * time.Second // for connections to end
	closeWait    = 10 * time.Second
)

// Node is one Warren node: all rooms, put together.
type Node struct {
	cfg     Config
	slog    *slog.Logger
	cluster *cluster.Cluster
	broker  *broker.Broker
	groups  *groups
	amqp    *amqp.Server
	started time.Time

	clusterID string      // set once formed
	serving   atomic.Bool // clients can connect
}

// Run starts a node, and returns when ctx ends and all of it has stopped, or
// with the error that kept it from running.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	n := &Node{cfg: cfg, slog: log.With("node", cfg.Name), started: time.Now()}
	listeners, err := n.listen()
	if err != nil {
		return err
	}
	if err := n.build(); err != nil {
		listeners.close()
		return err
	}
	return n.run(ctx, listeners)
}

// listeners are opened before anything else: a port that is taken ends the
// start at once, with nothing changed.
type listeners struct{ amqp, http, pprof net.Listener }

func (l *listeners) close() {
	for _, ln := range []net.Listener{l.amqp, l.http, l.pprof} {
		if ln != nil {
			ln.Close()
		}
	}
}

func (n *Node) listen() (l *listeners, err error) {
	l = &listeners{}
	open := func(to *net.Listener, what, addr string) {
		if err != nil || addr == "" {
			return
		}
		if *to, err = net.Listen("tcp", addr); err != nil {
			err = fmt.Errorf("cannot listen for %s on %s: %w (is another node or broker running? choose another port)", what, addr, err)
		}
	}
	open(&l.amqp, "AMQP", n.cfg.AMQPListen)
	open(&l.http, "HTTP", n.cfg.HTTPListen)
	open(&l.pprof, "profiles", n.cfg.PprofListen)
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (n *Node) build() (err error) {
	n.cluster, err = cluster.New(cluster.Config{
		DataDir: n.cfg.DataDir, Name: n.cfg.Name, Listen: n.cfg.ClusterListen, Advertise: n.cfg.ClusterAdvertise,
		Join: n.cfg.Join, BootstrapExpect: n.cfg.BootstrapExpect, Secret: n.cfg.Secret,
	}, n.slog)
	if err != nil {
		return err
	}
	n.broker = broker.New(lane{n.cluster}, broker.Options{
		NowMs:         func() int64 { return time.Now().UnixMilli() },
		LoopbackUsers: n.cfg.LoopbackUsers,
		Log:           n.slog,
	})
	n.groups = &groups{cluster: n.cluster, broker: n.broker, slog: n.slog, open: map[mq.GroupID]*cluster.Group{}, led: map[uint64]ledSince{}}
	n.groups.answer()
	n.cluster.Handle(frames{n.broker})
	n.amqp = amqp.New(door{n.broker}, amqp.Config{
		Product: "Warren", Version: Version, ClusterName: n.cfg.ClusterName,
		FrameMax: n.cfg.FrameMax, ChannelMax: n.cfg.ChannelMax,
		Heartbeat:       time.Duration(n.cfg.HeartbeatSeconds) * time.Second,
		MaxMessageBytes: int64(n.cfg.MaxMessageBytes),
	}, n.slog)
	return nil
}

// run brings the node up step by step, serves, and takes it down in the
// opposite order.
func (n *Node) run(ctx context.Context, l *listeners) error {
	defer l.close()
	var work sync.WaitGroup
	defer work.Wait()
	outer, stop := context.WithCancel(ctx)
	defer stop()
	if l.http != nil {
		web := management.NewServer(n, Version, n.slog)
		work.Go(func() { n.noted("http", web.Run(outer, l.http)) })
	}
	if l.pprof != nil {
		work.Go(func() { n.noted("pprof", management.RunPprof(outer, l.pprof, n.slog)) })
	}
	if err := n.cluster.Start(ctx); err != nil {
		return err
	}
	defer n.closeCluster()
	err := n.join(ctx)
	if err == nil {
		err = n.serve(ctx, l)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // asked to stop
	}
	return err
}

func (n *Node) noted(what string, err error) {
	if err != nil {
		n.slog.Error("server ended", "server", what, "err", err)
	}
}

// join makes the node part of its cluster: it is formed or found, the
// metadata group runs, and the node is noted in it with a new session.
func (n *Node) join(ctx context.Context) error {
	formed, err := n.cluster.Formed(ctx)
	if err != nil {
		return err
	}
	n.clusterID, n.groups.founders = formed.ClusterID, formed.Founders
	return n.groups.openMeta()
}

// serve lets clients in and looks after the groups until ctx ends.
func (n *Node) serve(ctx context.Context, l *listeners) error {
	looking, stopLooking := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	defer work.Wait()
	defer stopLooking()
	work.Go(func() { n.lookAfter(looking) })
	work.Go(func() { n.keepSession(looking) })
	if err := n.broker.OpenSession(ctx, n.cfg.Name, n.cluster.Advertised()); err != nil {
		n.groups.close(within(closeWait))
		return err
	}
	clients, stopClients := context.WithCancel(context.WithoutCancel(ctx))
	defer stopClients()
	ended := make(chan error, 1)
	work.Go(func() { ended <- n.amqp.Serve(clients, l.amqp) })
	n.serving.Store(true)
	n.slog.Info("serving", "amqp", l.amqp.Addr().String())
	select {
	case <-ctx.Done():
	case err := <-ended:
		return fmt.Errorf("AMQP server: %w", err)
	}
	n.serving.Store(false)
	n.stop(stopClients, ended)
	return nil
}

// stop takes the node out of its cluster in the order that clients feel the
// least: leaderships first, then connections, then the session.
func (n *Node) stop(stopClients func(), ended <-chan error) {
	n.slog.Info("stopping")
	n.groups.handOver(within(handOverWait))
	stopClients()
	select {
	case err := <-ended:
		n.noted("amqp", err)
	case <-time.After(clientsWait):
		n.slog.Warn("connections did not end in time")
	}
	n.groups.leave(within(handOverWait))
	n.broker.Close()
	n.groups.close(within(closeWait))
}

// within is a context for the last steps, which the end of the node's
// own context must not cut short.
func within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (n *Node) closeCluster() {
	n.noted("cluster", n.cluster.Close(within(closeWait)))
}

// firstMetadata is what a new cluster starts with.
func (n *Node) firstMetadata() (meta.ClusterInit, error) {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return meta.ClusterInit{}, err
	}
	return meta.ClusterInit{
		ClusterID: n.clusterID, Groups: n.groups.layout(n.cfg.GroupCount()),
		DefaultUser: n.cfg.DefaultUser, DefaultPass: meta.HashPassword(salt, n.cfg.DefaultPass), DefaultVHost: n.cfg.DefaultVHost,
	}, nil
}

// lookAfter keeps groups, replicas and sessions in order until ctx ends.
func (n *Node) lookAfter(ctx context.Context) {
	every := time.NewTicker(tick)
	defer every.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for beat := 0; ; beat++ {
		n.tend(ctx, beat)
		select {
		case <-every.C:
		case <-sweep.C:
			n.broker.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// tend does one round. What fails is tried again in the next one.
func (n *Node) tend(ctx context.Context, beat int) {
	if !n.broker.View().Initialized() {
		first, err := n.firstMetadata()
		if err == nil {
			err = n.groups.init(ctx, first)
		}
		n.complain("making the cluster's metadata", err)
	}
	n.complain("opening groups", n.groups.sync())
	if beat%10 != 0 || ctx.Err() != nil {
		return
	}
	n.complain("ending dead sessions", n.groups.endDead(ctx))
	n.complain("placing groups", n.groups.place(ctx))
	n.complain("changing a group's members", n.groups.follow(ctx))
	n.groups.balance(ctx)
}

func (n *Node) complain(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		n.slog.Warn("will try again", "what", what, "err", err)
	}
}

// keepSession opens a new session when the cluster has declared this one over.
func (n *Node) keepSession(ctx context.Context) {
	for {
		select {
		case <-n.broker.LostRun():
			n.complain("opening a new session", n.broker.OpenSession(ctx, n.cfg.Name, n.cluster.Advertised()))
		case <-ctx.Done():
			return
		}
	}
}
