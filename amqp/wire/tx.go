package wire

// TxSelect makes the channel transactional.
type TxSelect struct{}

// ID is 90, 10.
func (TxSelect) ID() (class, method uint16) { return 90, 10 }

// Name is tx.select.
func (TxSelect) Name() string { return "tx.select" }

func (*TxSelect) decode(*decoder) {}

func (TxSelect) append(dst []byte) []byte { return dst }

// TxSelectOk answers tx.select.
type TxSelectOk struct{}

// ID is 90, 11.
func (TxSelectOk) ID() (class, method uint16) { return 90, 11 }

// Name is tx.select-ok.
func (TxSelectOk) Name() string { return "tx.select-ok" }

func (*TxSelectOk) decode(*decoder) {}

func (TxSelectOk) append(dst []byte) []byte { return dst }

// TxCommit commits the transaction.
type TxCommit struct{}

// ID is 90, 20.
func (TxCommit) ID() (class, method uint16) { return 90, 20 }

// Name is tx.commit.
func (TxCommit) Name() string { return "tx.commit" }

func (*TxCommit) decode(*decoder) {}

func (TxCommit) append(dst []byte) []byte { return dst }

// TxCommitOk answers tx.commit.
type TxCommitOk struct{}

// ID is 90, 21.
func (TxCommitOk) ID() (class, method uint16) { return 90, 21 }

// Name is tx.commit-ok.
func (TxCommitOk) Name() string { return "tx.commit-ok" }

func (*TxCommitOk) decode(*decoder) {}

func (TxCommitOk) append(dst []byte) []byte { return dst }

// TxRollback abandons the transaction.
type TxRollback struct{}

// ID is 90, 30.
func (TxRollback) ID() (class, method uint16) { return 90, 30 }

// Name is tx.rollback.
func (TxRollback) Name() string { return "tx.rollback" }

func (*TxRollback) decode(*decoder) {}

func (TxRollback) append(dst []byte) []byte { return dst }

// TxRollbackOk answers tx.rollback.
type TxRollbackOk struct{}

// ID is 90, 31.
func (TxRollbackOk) ID() (class, method uint16) { return 90, 31 }

// Name is tx.rollback-ok.
func (TxRollbackOk) Name() string { return "tx.rollback-ok" }

func (*TxRollbackOk) decode(*decoder) {}

func (TxRollbackOk) append(dst []byte) []byte { return dst }
