package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
)

const benchHelp = `Publish to and consume from queues of its own, any AMQP 0-9-1 broker's, and
print what that gave: a line each second, then throughput, percentiles of the
time to a confirm and from publish to delivery, and how many confirmed messages
never came out again, which should be none.

Connections go round robin over the addresses of --url, so that publishers,
consumers and leaders are on different nodes. With --rate, times count from
when a message was due, not from when it could be sent.`

// benchOptions is what `bench` is asked for.
type benchOptions struct {
	urls       string
	publishers int
	consumers  int
	queues     int
	prefix     string
	sizeBytes  int
	window     int // messages of a publisher that wait for a confirm; 0 asks for none
	prefetch   int
	rate       float64 // messages per second of all publishers; 0 is no limit
	time       time.Duration
	durable    bool
	autoAck    bool
	keep       bool
	local      int // nodes of a cluster of its own; 0 is none
}

func benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench",
		Short: "Put load on a broker and measure it",
		Long:  benchHelp,
		Example: `  warren bench
  warren bench --url amqp://127.0.0.1:5672,amqp://127.0.0.1:5673 --queues 10 --publishers 4 --consumers 4
  warren bench --local 3 --rate 3000 --time 30s
  warren bench --durable=false --auto-ack --confirm-window 0`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			out := c.OutOrStdout()
			if o.local > 0 {
				return benchLocal(c.Context(), o, out)
			}
			return bench(c.Context(), o, out, onTerminal(out))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.urls, "url", "amqp://guest:guest@127.0.0.1:5672/", "`addresses` of nodes, with commas between")
	f.DurationVar(&o.time, "time", 10*time.Second, "how `long` to publish")
	f.IntVar(&o.publishers, "publishers", 1, "`number` of publishers, each on a connection of its own")
	f.IntVar(&o.consumers, "consumers", 1, "`number` of consumers, each on a connection of its own")
	f.IntVar(&o.queues, "queues", 1, "`number` of queues")
	f.IntVar(&o.sizeBytes, "size", 1024, "`bytes` of a body")
	f.IntVar(&o.window, "confirm-window", 256, "`messages` that a publisher lets wait for a confirm; 0 asks for no confirms")
	f.IntVar(&o.prefetch, "prefetch", 256, "unacknowledged `messages` of a consumer; 0 is no limit")
	f.Float64Var(&o.rate, "rate", 0, "`messages` per second of all publishers together; 0 is no limit")
	f.BoolVar(&o.durable, "durable", true, "durable queues and persistent messages")
	f.BoolVar(&o.autoAck, "auto-ack", false, "consume without acknowledgements")
	f.StringVar(&o.prefix, "queue-prefix", "warren-bench", "`text` that the queues' names begin with")
	f.IntVar(&o.local, "local", 0, "start a cluster of `N` nodes on this machine for it, and stop it at the end")
	f.BoolVar(&o.keep, "keep", false, "leave the queues there at the end")
	return c
}

// Bounds of the options, so that a slip of the finger hurts nobody.
const (
	benchClientsMax = 10000
	benchWindowMax  = 65535
	benchSizeMax    = 512 << 20
)

func (o *benchOptions) check() error {
	switch {
	case len(list(o.urls)) == 0:
		return errors.New("--url: needs an address")
	case o.publishers < 0 || o.consumers < 0 || o.publishers+o.consumers == 0 || o.publishers+o.consumers > benchClientsMax:
		return fmt.Errorf("--publishers and --consumers: must be 1 to %d together", benchClientsMax)
	case o.queues < 1 || o.queues > benchClientsMax:
		return fmt.Errorf("--queues %d: must be 1 to %d", o.queues, benchClientsMax)
	case o.sizeBytes < stampBytes || o.sizeBytes > benchSizeMax:
		return fmt.Errorf("--size %d: must be %d to %d, since each body carries its number and time", o.sizeBytes, stampBytes, benchSizeMax)
	case o.window < 0 || o.window > benchWindowMax:
		return fmt.Errorf("--confirm-window %d: must be 0 to %d", o.window, benchWindowMax)
	case o.prefetch < 0 || o.prefetch > 65535:
		return fmt.Errorf("--prefetch %d: must be 0 to 65535", o.prefetch)
	case o.rate < 0 || o.time <= 0:
		return errors.New("--rate and --time: must not be negative, nor --time 0")
	}
	return nil
}

func (o *benchOptions) queue(i int) string { return fmt.Sprintf("%s-%d", o.prefix, i) }

// onTerminal reports whether out is a screen, where a line can be written over.
func onTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

const (
	drainSilence = 5 * time.Second // without a delivery, and what has not come is lost
	drainLongest = 60 * time.Second
	drainPoll    = 20 * time.Millisecond
	benchTick    = time.Second
)

// bench makes the queues, runs the load, drains, and prints the result.
func bench(ctx context.Context, o benchOptions, out io.Writer, terminal bool) error {
	urls := list(o.urls)
	if err := makeQueues(urls[0], o); err != nil {
		return err
	}
	run := newBenchRun(o, urls)
	defer run.close()
	if err := run.startConsumers(); err != nil {
		return err
	}
	begin := time.Now()
	printed := make(chan struct{})
	printing, donePrinting := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(printed)
		printLive(printing, run, begin, out, terminal)
	}()
	err := run.publish(ctx, begin)
	published := time.Since(begin)
	if err == nil && o.consumers > 0 {
		run.drain(ctx)
	}
	total := time.Since(begin)
	donePrinting()
	<-printed
	run.close()
	printResult(out, run, published, total)
	if !o.keep {
		err = errors.Join(err, dropQueues(urls[0], o))
	}
	if lost := run.tally.lost(); err == nil && o.consumers > 0 && ctx.Err() == nil && lost > 0 {
		err = fmt.Errorf("%d messages were lost", lost)
	}
	return err
}

// makeQueues declares empty queues.
func makeQueues(url string, o benchOptions) error {
	return onChannel(url, func(ch *amqp091.Channel) error {
		for i := range o.queues {
			if _, err := ch.QueueDeclare(o.queue(i), o.durable, false, false, false, nil); err != nil {
				return fmt.Errorf("declare %s: %w", o.queue(i), err)
			}
			if _, err := ch.QueuePurge(o.queue(i), false); err != nil {
				return fmt.Errorf("purge %s: %w", o.queue(i), err)
			}
		}
		return nil
	})
}

func dropQueues(url string, o benchOptions) error {
	return onChannel(url, func(ch *amqp091.Channel) error {
		for i := range o.queues {
			if _, err := ch.QueueDelete(o.queue(i), false, false, false); err != nil {
				return fmt.Errorf("delete %s: %w", o.queue(i), err)
			}
		}
		return nil
	})
}

func onChannel(url string, do func(*amqp091.Channel) error) error {
	conn, err := dial(url, "warren bench control")
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	return do(ch)
}

func dial(url, name string) (*amqp091.Connection, error) {
	props := amqp091.NewConnectionProperties()
	props.SetClientConnectionName(name)
	conn, err := amqp091.DialConfig(url, amqp091.Config{Properties: props, Heartbeat: 10 * time.Second, Locale: "en_US"})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// benchRun is one run: its connections, and what came of them.
type benchRun struct {
	benchOptions
	urls      []string
	tally     *tally
	confirm   histogram // publish to confirm
	endToEnd  histogram // publish to delivery
	consumers sync.WaitGroup

	mu    sync.Mutex
	conns []*amqp091.Connection
}

func newBenchRun(o benchOptions, urls []string) *benchRun {
	return &benchRun{benchOptions: o, urls: urls, tally: newTally(o.publishers)}
}

// connect opens the i-th connection, which ends with the run.
func (r *benchRun) connect(i int, name string) (*amqp091.Channel, error) {
	conn, err := dial(r.urls[i%len(r.urls)], name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.conns = append(r.conns, conn)
	r.mu.Unlock()
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	return ch, nil
}

// close ends all connections and waits for the consumers. Twice is once.
func (r *benchRun) close() {
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	r.mu.Unlock()
	for _, c := range conns {
		c.Close() // the broker may have gone first
	}
	r.consumers.Wait()
}

// drain waits until all that was confirmed, or all that was sent if nothing
// is confirmed, has come out, or nothing comes out any more.
func (r *benchRun) drain(ctx context.Context) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	begin, last, moved := time.Now(), r.tally.consumed.Load(), time.Now()
	for r.tally.lost() > 0 {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if n := r.tally.consumed.Load(); n != last {
				last, moved = n, now
			}
			if now.Sub(moved) > drainSilence || now.Sub(begin) > drainLongest {
				return
			}
		}
	}
}
