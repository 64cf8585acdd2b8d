package mq

// Op is a topology change, or a question about topology, as a value: the same
// for an AMQP method, an HTTP request and an imported definitions file.
// Names are as the client sent them; the broker knows the session's vhost.
type Op interface{ op() }

// The changes of AMQP 0-9-1 §1.6 (exchange) and §1.7 (queue), with RabbitMQ's
// exchange-to-exchange bindings. Passive asks and changes nothing.
type (
	ExchangeDeclare struct {
		Name, Type                             string
		Passive, Durable, AutoDelete, Internal bool
		Args                                   Table
	}
	ExchangeDelete struct {
		Name     string
		IfUnused bool
	}
	ExchangeBind struct {
		Destination, Source, RoutingKey string
		Args                            Table
	}
	ExchangeUnbind struct {
		Destination, Source, RoutingKey string
		Args                            Table
	}
	QueueDeclare struct {
		Name                                    string // "" asks the broker for a name
		Passive, Durable, Exclusive, AutoDelete bool
		Args                                    Table
	}
	QueueDelete struct {
		Name              string
		IfUnused, IfEmpty bool
	}
	QueuePurge struct{ Name string }
	QueueBind  struct {
		Queue, Exchange, RoutingKey string
		Args                        Table
	}
	QueueUnbind struct {
		Queue, Exchange, RoutingKey string
		Args                        Table
	}
)

func (ExchangeDeclare) op() {}
func (ExchangeDelete) op()  {}
func (ExchangeBind) op()    {}
func (ExchangeUnbind) op()  {}
func (QueueDeclare) op()    {}
func (QueueDelete) op()     {}
func (QueuePurge) op()      {}
func (QueueBind) op()       {}
func (QueueUnbind) op()     {}

// Reply is the answer to an Op; the fields that its method's reply has are set.
type Reply struct {
	Queue     string
	Messages  uint32 // ready ones; for delete and purge: how many went
	Consumers uint32
}

// Credentials are what a client authenticates with.
type Credentials struct {
	Mechanism string // PLAIN, AMQPLAIN or EXTERNAL
	User      string
	Password  string
	// Loopback says that the client is on this machine; guest may only come from there.
	Loopback bool
}
