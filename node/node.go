package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"warren/amqp"
	"warren/broker"
	"warren/cluster"
	"warren/fsm/meta"
	"warren/management"
	"warren/storage/raftlog"
	"warren/storage/segment"
	"warren/storage/vfs"
)

// Version is what the node tells clients and metrics.
const Version = "0.1.0"

// Timing of a node's own work.
const (
	openEvery    = 100 * time.Millisecond // how often the metadata is asked for groups to open
	tendEvery    = time.Second            // how often members, leaders and sessions are looked after
	sweepEvery   = time.Minute
	handOverWait = 3 * time.Second // for leaderships, when the node stops
	leaveWait    = time.Second     // for the end of its session; the others find out without it
	clientsWait  = 5 * time.Second // for connections to end
	closeWait    = 10 * time.Second
	// grumbleEvery is how often something that fails again and again is logged.
	grumbleEvery = 10 * time.Second
)

// Node is one Warren node: all rooms, put together.
type Node struct {
	cfg     Config
	slog    *slog.Logger
	cluster *cluster.Cluster
	broker  *broker.Broker
	groups  *groups
	pager   *segment.Pager
	amqp    *amqp.Server
	started time.Time
	secret  string // of openControl
	end     func() // ends what run began

	alarm        *alarm
	lookAtAlarms chan struct{} // cap 1: before the next tick

	serving  atomic.Bool // clients can connect
	stopping atomic.Bool

	mu       sync.Mutex
	grumbled map[string]time.Time // by what failed; a handful of constants
}

// Run starts a node, and returns when ctx ends and all of it has stopped, or
// with the error that kept it from running.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	l, err := listen(&cfg)
	if err != nil {
		return err
	}
	defer l.close()
	n, err := build(cfg, log)
	if err != nil {
		return err
	}
	return n.run(ctx, l)
}

// build puts the rooms together. Nothing runs yet, but the data directory is
// locked: run unlocks it.
func build(cfg Config, log *slog.Logger) (*Node, error) {
	n := &Node{cfg: cfg, slog: log.With("node", cfg.Name), started: time.Now(), grumbled: map[string]time.Time{}}
	n.alarm, n.lookAtAlarms = newAlarm(&cfg, n.slog), make(chan struct{}, 1)
	n.alarm.release() // the log needs room to begin
	c, err := cluster.New(cluster.Config{
		DataDir: cfg.DataDir, Name: cfg.Name, Listen: cfg.ClusterListen, Advertise: cfg.ClusterAdvertise,
		Join: cfg.Join, BootstrapExpect: cfg.BootstrapExpect, Secret: cfg.Secret, LogStore: cfg.LogStore,
		Fatal: n.fatal,
	}, n.slog)
	if err != nil {
		return nil, err
	}
	n.cluster = c
	n.broker = broker.New(lane{c}, broker.Options{
		NowMs:         func() int64 { return time.Now().UnixMilli() },
		LoopbackUsers: cfg.LoopbackUsers,
		Log:           n.slog,
		Fatal:         n.fatal,
	})
	n.pager = segment.NewPager(vfs.OS{}, cfg.BodyMemory(), cfg.bodyMemoryMost(), broker.BodySense(), n.slog)
	n.groups = newGroups(c, n.broker, n.pager, n.fatal, n.slog)
	n.amqp = amqp.New(door{n.broker}, amqp.Config{
		Product: "Warren", Version: Version, ClusterName: n.clusterName,
		FrameMax: cfg.FrameMax, ChannelMax: cfg.ChannelMax, Heartbeat: heartbeat(cfg.HeartbeatSeconds),
		MaxMessageBytes: int64(cfg.MaxMessageBytes),
	}, n.slog)
	c.Handle(frames{n.broker})
	n.answer()
	return n, nil
}

// heartbeat is HeartbeatSeconds as the AMQP room has it: negative for none.
func heartbeat(seconds uint16) time.Duration {
	if seconds == 0 {
		return -1
	}
	return time.Duration(seconds) * time.Second
}

// exitDiskHung is the exit code after a disk that does not answer: a
// supervisor should wait a while before it starts the node again.
const exitDiskHung = 75

// fatal ends the process: to go on after a failed fsync would break promises.
func (n *Node) fatal(err error) {
	n.slog.Error("this node cannot go on and ends its process", "err", err)
	if errors.Is(err, raftlog.ErrHung) {
		os.Exit(exitDiskHung)
	}
	os.Exit(1)
}

// run brings the node up step by step, serves, and takes it down in the
// opposite order. The HTTP side comes first and goes last: it says how far the
// node is.
func (n *Node) run(ctx context.Context, l *listeners) error {
	web, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	ctx, n.end = context.WithCancel(ctx) // before commands are taken
	defer n.end()
	var work sync.WaitGroup
	defer work.Wait()
	defer stopWeb()
	defer n.closeCluster()
	if l.http != nil {
		if err := n.openControl(l.http.Addr()); err != nil {
			return err
		}
		defer n.closeControl()
		s := management.NewServer(n, Version, n.slog)
		work.Go(func() { n.noted("http", s.Run(web, l.http)) })
	}
	if l.pprof != nil {
		work.Go(func() { n.noted("pprof", management.RunPprof(web, l.pprof, n.slog)) })
	}
	err := n.live(ctx, l)
	if ctx.Err() == nil {
		return err
	}
	if err != nil && !errors.Is(err, ctx.Err()) {
		n.slog.Warn("stopped while something went wrong", "err", err)
	}
	return nil // asked to stop
}

func (n *Node) noted(what string, err error) {
	if err != nil {
		n.slog.Error("part of the node ended badly", "part", what, "err", err)
	}
}

// live makes the node part of its cluster, which is formed or found, and
// serves until ctx ends.
func (n *Node) live(ctx context.Context, l *listeners) error {
	if err := n.cluster.Start(ctx); err != nil {
		return err
	}
	formed, err := n.cluster.Formed(ctx)
	if err != nil {
		return err
	}
	if err := n.groups.begin(ctx, formed); err != nil {
		return err
	}
	return n.serve(ctx, l)
}

// serve looks after the groups, and with a session lets clients in, until ctx
// ends.
func (n *Node) serve(ctx context.Context, l *listeners) error {
	background := context.WithoutCancel(ctx)
	looking, stopLooking := context.WithCancel(background)
	var looks sync.WaitGroup
	looks.Go(func() { n.openGroups(looking) })
	looks.Go(func() { n.tend(looking) })
	looks.Go(func() { n.keepSession(looking) })
	looks.Go(func() { n.watchAlarms(looking) })
	looks.Go(func() { n.compare(looking) })
	err := n.broker.OpenSession(ctx, n.cfg.Name, n.cluster.Advertised())

	var serving sync.WaitGroup
	defer serving.Wait()
	clients, stopClients := context.WithCancel(background)
	defer stopClients()
	ended := make(chan struct{})
	if err == nil {
		err = admit(l.amqp)
	}
	if err == nil {
		serving.Go(func() {
			defer close(ended)
			err = n.amqp.Serve(clients, l.amqp)
		})
		n.serving.Store(true)
		n.slog.Info("serving", "amqp", l.amqp.Addr().String())
		select {
		case <-ctx.Done():
		case <-ended:
		}
	} else {
		close(ended)
	}
	n.stopping.Store(true)
	n.serving.Store(false)
	n.slog.Info("stopping")
	stopLooking() // or it would take back what is handed over, and open a new session for the one that ends
	looks.Wait()
	n.stop(stopClients, ended)
	serving.Wait()
	if err != nil {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

// stop takes the node out of its cluster in the order that clients feel the
// least: leaderships first, then connections, then the session.
func (n *Node) stop(stopClients func(), ended <-chan struct{}) {
	n.groups.handOver(within(handOverWait))
	stopClients()
	select {
	case <-ended:
	case <-time.After(clientsWait):
		n.slog.Warn("connections did not end in time")
	}
	n.broker.Close()
	n.groups.leave(within(leaveWait))
	n.pager.Hurry()
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
	n.pager.Hurry()
	n.noted("cluster", n.cluster.Close(within(closeWait)))
	n.pager.Close()
}

// firstMetadata is what a new cluster starts with.
func (n *Node) firstMetadata() (meta.ClusterInit, error) {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return meta.ClusterInit{}, err
	}
	return meta.ClusterInit{
		ClusterID: n.groups.formed.ClusterID, Groups: n.groups.layout(n.cfg.GroupCount()),
		DefaultUser: n.cfg.DefaultUser, DefaultPass: meta.HashPassword(salt, n.cfg.DefaultPass), DefaultVHost: n.cfg.DefaultVHost,
	}, nil
}

// openGroups makes a new cluster's metadata, and opens the groups that the
// metadata gives to this node, until ctx ends.
func (n *Node) openGroups(ctx context.Context) {
	every := time.NewTicker(openEvery)
	defer every.Stop()
	n.groups.reopen(time.Now())
	for {
		if !n.broker.View().Initialized() {
			first, err := n.firstMetadata()
			if err == nil {
				err = n.groups.init(ctx, first)
			}
			n.grumble("making the cluster's metadata", err)
		}
		n.groups.sync(time.Now())
		n.grumble("noting that this node's groups exist", n.groups.founded())
		if n.serving.Load() {
			every.Reset(tendEvery) // what comes now is not urgent, and a node at rest is quiet
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// tend keeps replicas, leaders and sessions in order until ctx ends. What
// fails is tried again in the next round.
func (n *Node) tend(ctx context.Context) {
	every := time.NewTicker(tendEvery)
	defer every.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-sweep.C:
			n.broker.Sweep()
		case <-every.C:
			if !n.broker.View().Initialized() {
				continue
			}
			n.grumble("ending dead sessions", n.groups.endDead(ctx))
			n.grumble("raising the feature level", n.groups.raiseLevel(ctx))
			n.grumble("placing groups", n.groups.place(ctx))
			n.grumble("changing a group's members", n.groups.follow(ctx))
			n.groups.abdicate(ctx)
			n.groups.mend(ctx)
			n.groups.balance(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// compare compares this node's replicas with those of others until ctx ends.
// It is not part of tend, which must not wait for a node that hangs.
func (n *Node) compare(ctx context.Context) {
	every := time.NewTicker(tendEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			n.broker.Compare(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// grumble logs what failed and will be tried again, but not every time.
func (n *Node) grumble(what string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	n.mu.Lock()
	due := time.Since(n.grumbled[what]) >= grumbleEvery
	if due {
		n.grumbled[what] = time.Now()
	}
	n.mu.Unlock()
	if due {
		n.slog.Warn("will try again", "what", what, "err", err)
	}
}

// keepSession opens a new session when the cluster has declared this one over.
func (n *Node) keepSession(ctx context.Context) {
	for {
		select {
		case <-n.broker.LostRun():
			n.grumble("opening a new session", n.broker.OpenSession(ctx, n.cfg.Name, n.cluster.Advertised()))
		case <-ctx.Done():
			return
		}
	}
}
