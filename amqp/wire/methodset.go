package wire

// newMethod returns an empty method of the given ids for decoding into, or nil
// if AMQP 0-9-1 and RabbitMQ's extensions have none.
func newMethod(class, method uint16) decodable {
	switch uint32(class)<<16 | uint32(method) {
	case 10<<16 | 10:
		return new(ConnectionStart)
	case 10<<16 | 11:
		return new(ConnectionStartOk)
	case 10<<16 | 20:
		return new(ConnectionSecure)
	case 10<<16 | 21:
		return new(ConnectionSecureOk)
	case 10<<16 | 30:
		return new(ConnectionTune)
	case 10<<16 | 31:
		return new(ConnectionTuneOk)
	case 10<<16 | 40:
		return new(ConnectionOpen)
	case 10<<16 | 41:
		return new(ConnectionOpenOk)
	case 10<<16 | 50:
		return new(ConnectionClose)
	case 10<<16 | 51:
		return new(ConnectionCloseOk)
	case 10<<16 | 60:
		return new(ConnectionBlocked)
	case 10<<16 | 61:
		return new(ConnectionUnblocked)
	case 10<<16 | 70:
		return new(ConnectionUpdateSecret)
	case 10<<16 | 71:
		return new(ConnectionUpdateSecretOk)
	case 20<<16 | 10:
		return new(ChannelOpen)
	case 20<<16 | 11:
		return new(ChannelOpenOk)
	case 20<<16 | 20:
		return new(ChannelFlow)
	case 20<<16 | 21:
		return new(ChannelFlowOk)
	case 20<<16 | 40:
		return new(ChannelClose)
	case 20<<16 | 41:
		return new(ChannelCloseOk)
	case 30<<16 | 10:
		return new(AccessRequest)
	case 30<<16 | 11:
		return new(AccessRequestOk)
	case 40<<16 | 10:
		return new(ExchangeDeclare)
	case 40<<16 | 11:
		return new(ExchangeDeclareOk)
	case 40<<16 | 20:
		return new(ExchangeDelete)
	case 40<<16 | 21:
		return new(ExchangeDeleteOk)
	case 40<<16 | 30:
		return new(ExchangeBind)
	case 40<<16 | 31:
		return new(ExchangeBindOk)
	case 40<<16 | 40:
		return new(ExchangeUnbind)
	case 40<<16 | 51:
		return new(ExchangeUnbindOk)
	case 50<<16 | 10:
		return new(QueueDeclare)
	case 50<<16 | 11:
		return new(QueueDeclareOk)
	case 50<<16 | 20:
		return new(QueueBind)
	case 50<<16 | 21:
		return new(QueueBindOk)
	case 50<<16 | 30:
		return new(QueuePurge)
	case 50<<16 | 31:
		return new(QueuePurgeOk)
	case 50<<16 | 40:
		return new(QueueDelete)
	case 50<<16 | 41:
		return new(QueueDeleteOk)
	case 50<<16 | 50:
		return new(QueueUnbind)
	case 50<<16 | 51:
		return new(QueueUnbindOk)
	case 60<<16 | 10:
		return new(BasicQos)
	case 60<<16 | 11:
		return new(BasicQosOk)
	case 60<<16 | 20:
		return new(BasicConsume)
	case 60<<16 | 21:
		return new(BasicConsumeOk)
	case 60<<16 | 30:
		return new(BasicCancel)
	case 60<<16 | 31:
		return new(BasicCancelOk)
	case 60<<16 | 40:
		return new(BasicPublish)
	case 60<<16 | 50:
		return new(BasicReturn)
	case 60<<16 | 60:
		return new(BasicDeliver)
	case 60<<16 | 70:
		return new(BasicGet)
	case 60<<16 | 71:
		return new(BasicGetOk)
	case 60<<16 | 72:
		return new(BasicGetEmpty)
	case 60<<16 | 80:
		return new(BasicAck)
	case 60<<16 | 90:
		return new(BasicReject)
	case 60<<16 | 100:
		return new(BasicRecoverAsync)
	case 60<<16 | 110:
		return new(BasicRecover)
	case 60<<16 | 111:
		return new(BasicRecoverOk)
	case 60<<16 | 120:
		return new(BasicNack)
	case 85<<16 | 10:
		return new(ConfirmSelect)
	case 85<<16 | 11:
		return new(ConfirmSelectOk)
	case 90<<16 | 10:
		return new(TxSelect)
	case 90<<16 | 11:
		return new(TxSelectOk)
	case 90<<16 | 20:
		return new(TxCommit)
	case 90<<16 | 21:
		return new(TxCommitOk)
	case 90<<16 | 30:
		return new(TxRollback)
	case 90<<16 | 31:
		return new(TxRollbackOk)
	}
	return nil
}
