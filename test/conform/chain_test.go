package conform

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	e2eSource       = `RabbitMQ "Exchange to Exchange Bindings"`
	alternateSource = `RabbitMQ "Alternate Exchanges"`
)

// alternate is the argument that names an alternate exchange.
func alternate(name string) amqp.Table { return amqp.Table{"alternate-exchange": name} }

func TestBindingsBetweenExchangesCarryMessagesOn(t *testing.T) {
	c := begin(t, e2eSource)
	x, y := c.exchange("x", "direct", nil), c.exchange("y", "fanout", nil)
	c.must(c.link().ExchangeBind(y, "k", x, false, nil))
	q := c.bound("q", y, "", nil)
	l := c.link()
	l.texts(x, "other", "no")
	l.texts(x, "k", "yes")
	d := l.take(q)
	equal(t, "body", string(d.Body), "yes")
	equal(t, "exchange", d.Exchange, x)
	equal(t, "routing key", d.RoutingKey, "k")
}

func TestBindingsBetweenExchangesAreGoneAfterUnbind(t *testing.T) {
	c := begin(t, e2eSource)
	x, y := c.exchange("x", "direct", nil), c.exchange("y", "fanout", nil)
	l := c.link()
	c.must(l.ExchangeBind(y, "k", x, false, nil))
	c.must(l.ExchangeUnbind(y, "k", x, false, nil))
	q := c.bound("q", y, "", nil)
	l.texts(x, "k", "m")
	l.isEmpty(q)
}

func TestBindingsBetweenExchangesMayGoInACircle(t *testing.T) {
	c := begin(t, e2eSource)
	x, y := c.exchange("x", "fanout", nil), c.exchange("y", "fanout", nil)
	l := c.link()
	c.must(l.ExchangeBind(y, "", x, false, nil))
	c.must(l.ExchangeBind(x, "", y, false, nil))
	a, b := c.bound("a", x, "", nil), c.bound("b", y, "", nil)
	l.texts(x, "", "m")
	for _, q := range []string{a, b} {
		equal(t, "body", string(l.take(q).Body), "m")
		l.isEmpty(q)
	}
}

func TestBindingsBetweenExchangesMayGoToTheExchangeItself(t *testing.T) {
	c := begin(t, e2eSource)
	x := c.exchange("x", "fanout", nil)
	l := c.link()
	c.must(l.ExchangeBind(x, "", x, false, nil))
	q := c.bound("q", x, "", nil)
	l.texts(x, "", "m")
	l.take(q)
	l.isEmpty(q)
}

func TestBindingsBetweenExchangesLeadToOneCopyOnTwoWays(t *testing.T) {
	c := begin(t, e2eSource)
	x, y, z := c.exchange("x", "fanout", nil), c.exchange("y", "fanout", nil), c.exchange("z", "fanout", nil)
	l := c.link()
	c.must(l.ExchangeBind(y, "", x, false, nil))
	c.must(l.ExchangeBind(z, "", x, false, nil))
	q := c.bound("q", y, "", nil)
	c.bind(q, z, "", nil)
	l.texts(x, "", "m")
	l.take(q)
	l.isEmpty(q)
}

func TestBindingsBetweenExchangesReachInternalExchanges(t *testing.T) {
	c := begin(t, e2eSource)
	l, x, inner := c.link(), c.exchange("x", "fanout", nil), c.name("inner")
	c.must(l.ExchangeDeclare(inner, "fanout", true, false, true, false, nil))
	c.exchanges = append(c.exchanges, inner)
	c.must(l.ExchangeBind(inner, "", x, false, nil))
	q := c.bound("q", inner, "", nil)
	l.texts(x, "", "m")
	equal(t, "body", string(l.take(q).Body), "m")
}

func TestBindingsBetweenExchangesKeepAnAutoDeleteSourceAlive(t *testing.T) {
	c := begin(t, e2eSource)
	l, x, y := c.link(), c.name("x"), c.exchange("y", "fanout", nil)
	c.must(l.ExchangeDeclare(x, "fanout", true, true, false, false, nil))
	c.must(l.ExchangeBind(y, "", x, false, nil))
	c.must(l.ExchangeUnbind(y, "", x, false, nil))
	refusedWith(t, l.ExchangeDeclarePassive(x, "fanout", true, true, false, false, nil), 404)
}

func TestAlternateExchangesGetWhatIsRoutedNowhere(t *testing.T) {
	c := begin(t, alternateSource)
	ae := c.exchange("ae", "fanout", nil)
	x := c.exchange("x", "direct", alternate(ae))
	q, rest := c.bound("q", x, "k", nil), c.bound("rest", ae, "", nil)
	l := c.link()
	l.texts(x, "k", "routed")
	l.texts(x, "other", "lost")
	equal(t, "routed", string(l.take(q).Body), "routed")
	d := l.take(rest)
	equal(t, "the rest", string(d.Body), "lost")
	equal(t, "exchange", d.Exchange, x)
	l.isEmpty(rest)
}

func TestAlternateExchangesMayHaveAlternatesThemselves(t *testing.T) {
	c := begin(t, alternateSource)
	second := c.exchange("second", "fanout", nil)
	first := c.exchange("first", "direct", alternate(second))
	x := c.exchange("x", "direct", alternate(first))
	q := c.bound("q", second, "", nil)
	l := c.link()
	l.texts(x, "k", "m")
	equal(t, "body", string(l.take(q).Body), "m")
}

func TestAlternateExchangesMayGoInACircle(t *testing.T) {
	c := begin(t, alternateSource)
	x := c.exchange("x", "direct", alternate(c.name("y")))
	y := c.exchange("y", "direct", alternate(x))
	r := c.raw()
	r.publish(y, "k", mandatory, text("m"))
	equal(t, "returned with", string(r.want(60, 50).rest[:2]), "\x01\x38")
}

func TestAlternateExchangesNeedNotBeThere(t *testing.T) {
	c := begin(t, alternateSource)
	x := c.exchange("x", "direct", alternate(c.name("none")))
	r := c.raw()
	r.publish(x, "k", mandatory, text("m"))
	r.want(60, 50)
}

func TestAlternateExchangesCountAsRoutedForMandatory(t *testing.T) {
	c := begin(t, alternateSource)
	ae := c.exchange("ae", "fanout", nil)
	x := c.exchange("x", "direct", alternate(ae))
	c.bound("q", ae, "", nil)
	r := c.raw()
	r.call(confirmSelect(), 85, 11)
	r.publish(x, "k", mandatory, text("m"))
	r.want(60, 80)
}

func TestAlternateExchangesDoNotGetWhatABindingToAnExchangeTook(t *testing.T) {
	c := begin(t, alternateSource)
	ae, nowhere := c.exchange("ae", "fanout", nil), c.exchange("nowhere", "direct", nil)
	x := c.exchange("x", "direct", alternate(ae))
	c.must(c.link().ExchangeBind(nowhere, "k", x, false, nil))
	q := c.bound("q", ae, "", nil)
	l := c.link()
	l.texts(x, "k", "m")
	l.isEmpty(q)
}

func TestAlternateExchangesAreOneForRedeclaration(t *testing.T) {
	c := begin(t, alternateSource)
	x := c.exchange("x", "direct", alternate("amq.fanout"))
	c.must(c.link().ExchangeDeclare(x, "direct", true, false, false, false, alternate("amq.fanout")))
}
