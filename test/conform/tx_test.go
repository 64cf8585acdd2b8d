package conform

import "testing"

func TestTxPublishesAreThereAfterCommitOnly(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	l := c.link()
	c.must(l.Tx())
	c.must(l.Publish("", q, false, false, text("m")))
	equal(t, "before", c.link().depth(q), 0)
	c.must(l.TxCommit())
	equal(t, "after", c.link().depth(q), 1)
}

func TestTxPublishesAreGoneAfterRollback(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	l := c.link()
	c.must(l.Tx())
	c.must(l.Publish("", q, false, false, text("m")))
	c.must(l.TxRollback())
	c.must(l.TxCommit())
	equal(t, "after", c.link().depth(q), 0)
}

func TestTxAcksCountAfterCommitOnly(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	l := c.link()
	c.must(l.Tx())
	c.must(l.fetch(q, false).Ack(false))
	c.must(l.Close())
	again := c.link().fetch(q, true)
	equal(t, "redelivered", again.Redelivered, true)
}

func TestTxAcksCountAfterCommit(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	l := c.link()
	c.must(l.Tx())
	c.must(l.fetch(q, false).Ack(false))
	c.must(l.TxCommit())
	c.must(l.Close())
	c.link().isEmpty(q)
}

func TestTxARolledBackAckMayBeGivenAgain(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	l := c.link()
	c.must(l.Tx())
	d := l.fetch(q, false)
	c.must(d.Ack(false))
	c.must(l.TxRollback())
	l.isEmpty(q) // it is not delivered again
	c.must(d.Ack(false))
	c.must(l.TxCommit())
	c.must(l.Close())
	c.link().isEmpty(q)
}

func TestTxNacksCountAfterCommit(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	l := c.link()
	c.must(l.Tx())
	c.must(l.fetch(q, false).Nack(false, true))
	c.link().isEmpty(q)
	c.must(l.TxCommit())
	equal(t, "body", string(c.link().take(q).Body), "m")
}

func TestTxSelectTwiceIsFine(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	l := c.link()
	c.must(l.Tx())
	c.must(l.Tx())
	c.must(l.TxCommit())
}

func TestTxWhatIsRoutedNowhereComesBackAtCommit(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	r := c.raw()
	r.call(txSelect(), 90, 11)
	r.publish("", c.name("none"), mandatory, text("m"))
	r.quiet()
	r.send(txCommit())
	r.want(60, 50)
	r.content()
	r.want(90, 21)
}

func TestTxAnUnknownExchangeIsRefusedBeforeCommit(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.9")
	r := c.raw()
	r.call(txSelect(), 90, 11)
	r.publish(c.name("x"), "", 0, text("m"))
	r.wantRefusal("channel 404 60.40 NOT_FOUND - no exchange 'conform-x-ID' in vhost '/'")
}
