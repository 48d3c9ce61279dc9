package machine

import "cmp"

// Rules switches single protocol rules off. The zero value keeps them all and is the only
// one that production code uses; tests switch one off and expect the auditor to notice.
type Rules struct {
	NoIndex          bool // 16: one number for all that a source record sends to a partition
	NoTopicID        bool // 1: source positions without the topic's id
	NoKeyName        bool // 17: one watermark for all key names of a topic
	NoSourceMarks    bool // 16: crossing requests are not counted
	NoRequestIDs     bool // 8: applied ids are not remembered
	NoRefusedIDs     bool // 8: refused ids are not remembered
	RefusalInMemory  bool // 8: refusals are not in-band
	NoFloor          bool // 8: no greatest forgotten `made`
	NoReturn         bool // 21: a receiver that can't take a message says nothing
	NoAck            bool // 21: deliveries are never acknowledged
	NoFanOrder       bool // 22: later messages overtake an unfinished fan-out
	NoActivation     bool // 20: a delivery is taken for any activation
	RemoveByInstance bool // 20: a subscription is removed by instance, not by activation
	NoFull           bool // 20: a full instance returns the message but keeps its subscription
	NoSurplusBack    bool // 20: buffered messages stay when nothing wants their key
	UnsubscribeLast  bool // 20: what goes back overtakes the Unsubscribe
	AnyAttempt       bool // 10: a result is taken from any attempt
	AnyRun           bool // 10: a result is taken from any run
	TimeoutAnyDue    bool // 10: a time-out need not match its due time
	NoInterrupted    bool // 10: a handler that was cut short is not started again
	CutCountsAll     bool // 10: interruptions count although the handler had not run
	NoStopKept       bool // 19: a stop that comes before its start is refused
	NoStopFollows    bool // 19: a stop that was kept does not follow its start
	NoHold           bool // 12: deliveries and results of a quarantined instance are decided
	NoLocalQueue     bool // 3: local requests are decided inside the request that made them
	NoForeign        bool // 2: a request of another partition is decided here
	NoPosition       bool // 5: a batch that decided nothing leaves no event

	// Limits are smaller in tests, so that short runs reach them.
	Limits Limits
}

// Limits of what is kept; 0 = as documented.
type Limits struct {
	Answers int // that an instance remembers: 128 applied, 128 refused
	Page    int // waiters that one event serves: 256
	Buffer  int // messages of one key that an instance keeps: 100
	Stop    int // ms that a stop is kept which came before its start: a day
}

func (l Limits) answers() int { return cmp.Or(l.Answers, rememberedAnswers) }
func (l Limits) page() int    { return cmp.Or(l.Page, fanOutPage) }
func (l Limits) stop() int64  { return int64(cmp.Or(l.Stop, stopMemory)) }
func (l Limits) buffer() int  { return cmp.Or(l.Buffer, bufferLimit) }
