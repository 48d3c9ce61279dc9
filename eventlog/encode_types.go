package eventlog

import "strconv"

// event writes the members in the order of the struct.
func (w *writer) event(e *Event) {
	w.b = append(w.b, `{"v":`...)
	w.b = strconv.AppendInt(w.b, int64(e.V), 10)
	w.b = append(w.b, `,"n":`...)
	w.b = strconv.AppendUint(w.b, e.N, 10)
	w.b = append(w.b, `,"type":`...)
	w.b = appendString(w.b, string(e.Type))
	w.b = append(w.b, `,"at":`...)
	w.b = strconv.AppendInt(w.b, e.At, 10)

	w.string(`"id":`, e.ID)
	w.uint(`"seq":`, e.Seq)
	w.uint(`"run":`, e.Run)
	w.uint(`"prev":`, e.Prev)
	w.string(`"path":`, e.Path)
	w.uint(`"act":`, e.Act)
	w.int(`"attempt":`, int64(e.Attempt))

	w.string(`"definition":`, e.Definition)
	w.string(`"plan":`, e.Plan)
	w.raw(`"planData":`, e.PlanData)
	w.raw(`"params":`, e.Params)
	w.taskKeys(e.Keys)
	w.bool(`"evaluate":`, e.Evaluate)
	if len(e.Starts) > 0 {
		w.key(`"starts":`)
		w.starts(e.Starts)
	}
	if len(e.Ends) > 0 {
		w.key(`"ends":`)
		w.ends(e.Ends)
	}
	w.string(`"choice":`, e.Choice)
	w.strings(`"choices":`, e.Choices)
	w.raws(`"items":`, e.Items)
	w.int(`"due":`, e.Due)
	w.string(`"error":`, e.Error)
	w.string(`"stack":`, e.Stack)
	w.string(`"reason":`, e.Reason)
	w.string(`"request":`, e.Request)
	w.int(`"made":`, e.Made)
	w.string(`"caller":`, e.Caller)
	w.trace(e.Trace)
	if e.Sent != nil {
		w.key(`"sent":`)
		w.sent(e.Sent)
	}
	w.keyRefs(`"subs":`, e.Subs)
	w.keyRefs(`"unsubs":`, e.Unsubs)
	if len(e.Back) > 0 {
		w.key(`"back":`)
		for i, n := range e.Back {
			w.b = strconv.AppendUint(append(w.b, separator(i)), n, 10)
		}
		w.b = append(w.b, ']')
	}
	w.raw(`"state":`, e.State)
	if e.Held != nil {
		w.key(`"held":`)
		w.request(e.Held)
	}

	w.string(`"topic":`, e.Topic)
	w.string(`"key":`, e.Key)
	w.string(`"value":`, e.Value)
	w.uint(`"msg":`, e.Msg)
	w.message(e.Message)
	w.int(`"expires":`, e.Expires)
	w.bool(`"sole":`, e.Sole)
	w.bool(`"local":`, e.Local)
	w.bool(`"again":`, e.Again)
	w.int(`"chosen":`, int64(e.Chosen))
	w.int(`"kept":`, int64(e.Kept))
	w.uint(`"after":`, e.After)
	w.uint(`"until":`, e.Until)
	w.int(`"from":`, int64(e.From))
	w.mark(`"upto":`, e.Upto)

	w.string(`"worker":`, e.Worker)
	w.string(`"address":`, e.Address)

	if len(e.Out) > 0 {
		w.key(`"out":`)
		for i := range e.Out {
			w.b = append(append(w.b, separator(i)), `{"to":`...)
			w.b = strconv.AppendInt(w.b, int64(e.Out[i].To), 10)
			w.b = append(w.b, `,"request":`...)
			w.request(&e.Out[i].Request)
			w.b = append(w.b, '}')
		}
		w.b = append(w.b, ']')
	}
	if e.Pos != nil {
		w.key(`"pos":`)
		w.position(e.Pos)
	}
	for _, f := range e.Extra {
		name := string(appendString(nil, f.Name)) + ":"
		w.key(name)
		w.value(name, f.Value)
	}
	w.b = append(w.b, '}')
}

func (w *writer) request(r *Request) {
	w.b = append(w.b, `{"v":`...)
	w.b = strconv.AppendInt(w.b, int64(r.V), 10)
	w.b = append(w.b, `,"type":`...)
	w.b = appendString(w.b, string(r.Type))

	w.string(`"request":`, r.Request)
	w.int(`"made":`, r.Made)
	w.string(`"caller":`, r.Caller)

	w.string(`"id":`, r.ID)
	w.uint(`"run":`, r.Run)
	w.string(`"path":`, r.Path)
	w.uint(`"act":`, r.Act)
	w.int(`"attempt":`, int64(r.Attempt))

	w.string(`"definition":`, r.Definition)
	w.string(`"plan":`, r.Plan)
	w.raw(`"params":`, r.Params)
	w.uint(`"base":`, r.Base)
	w.taskKeys(r.Keys)
	w.bool(`"hasKeys":`, r.HasKeys)
	w.string(`"reason":`, r.Reason)
	w.trace(r.Trace)
	w.raw(`"state":`, r.State)

	w.bool(`"ok":`, r.OK)
	w.bool(`"more":`, r.More)
	w.string(`"choice":`, r.Choice)
	w.strings(`"choices":`, r.Choices)
	w.raws(`"items":`, r.Items)
	w.string(`"stop":`, r.Stop)
	w.string(`"error":`, r.Error)
	w.string(`"stack":`, r.Stack)
	w.bool(`"terminal":`, r.Terminal)
	w.int(`"retryAfter":`, r.RetryAfter)
	w.float(`"jitter":`, r.Jitter)
	if r.Record != nil {
		w.key(`"record":`)
		w.record(r.Record)
	}

	if r.Source != nil {
		w.key(`"source":`)
		w.b = append(w.b, '{')
		w.source(r.Source)
		w.b = append(w.b, '}')
	}
	w.mark(`"mark":`, r.Mark)
	w.int(`"at":`, r.At)

	w.string(`"topic":`, r.Topic)
	w.string(`"key":`, r.Key)
	w.string(`"value":`, r.Value)
	w.uint(`"msg":`, r.Msg)
	w.message(r.Message)
	w.int(`"expires":`, r.Expires)
	w.int(`"ttl":`, r.TTL)
	w.bool(`"sole":`, r.Sole)
	w.bool(`"oldest":`, r.Oldest)
	w.int(`"from":`, int64(r.From))
	w.mark(`"upto":`, r.Upto)
	w.b = append(w.b, '}')
}

// separator is what stands before element i of an array.
func separator(i int) byte {
	if i == 0 {
		return '['
	}
	return ','
}

func (w *writer) starts(list []Start) {
	for i := range list {
		w.b = append(append(w.b, separator(i)), `{"path":`...)
		w.b = appendString(w.b, list[i].Path)
		w.b = append(w.b, `,"kind":`...)
		w.b = appendString(w.b, string(list[i].Kind))
		w.int(`"due":`, list[i].Due)
		w.bool(`"collect":`, list[i].Collect)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

func (w *writer) ends(list []End) {
	for i := range list {
		w.b = append(append(w.b, separator(i)), `{"path":`...)
		w.b = appendString(w.b, list[i].Path)
		w.b = append(w.b, `,"kind":`...)
		w.b = appendString(w.b, string(list[i].Kind))
		w.b = append(w.b, `,"status":`...)
		w.b = appendString(w.b, list[i].Status)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

func (w *writer) taskKeys(list []TaskKey) {
	if len(list) == 0 {
		return
	}
	w.key(`"keys":`)
	for i := range list {
		w.b = append(append(w.b, separator(i)), `{"path":`...)
		w.b = appendString(w.b, list[i].Path)
		w.b = append(w.b, `,"value":`...)
		w.b = appendString(w.b, list[i].Value)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

func (w *writer) keyRefs(k string, list []KeyRef) {
	if len(list) == 0 {
		return
	}
	w.key(k)
	for i := range list {
		w.b = append(append(w.b, separator(i)), `{"topic":`...)
		w.b = appendString(w.b, list[i].Topic)
		w.b = append(w.b, `,"key":`...)
		w.b = appendString(w.b, list[i].Key)
		w.b = append(w.b, `,"value":`...)
		w.b = appendString(w.b, list[i].Value)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

func (w *writer) sent(s *Sent) {
	w.b = append(w.b, `{"topic":`...)
	w.b = appendString(w.b, s.Topic)
	w.string(`"key":`, s.Key)
	w.bool(`"noKey":`, s.NoKey)
	w.b = append(w.b, `,"size":`...)
	w.b = strconv.AppendInt(w.b, int64(s.Size), 10)
	w.b = append(w.b, '}')
}

func (w *writer) trace(t *Trace) {
	if t == nil {
		return
	}
	w.key(`"trace":`)
	w.b = append(w.b, `{"traceparent":`...)
	w.b = appendString(w.b, t.Parent)
	w.string(`"tracestate":`, t.State)
	w.b = append(w.b, '}')
}

func (w *writer) message(m *Message) {
	if m == nil {
		return
	}
	w.key(`"message":`)
	w.b = append(w.b, `{"topic":`...)
	w.b = appendString(w.b, m.Topic)
	w.string(`"topicId":`, m.TopicID)
	w.b = append(w.b, `,"partition":`...)
	w.b = strconv.AppendInt(w.b, int64(m.Partition), 10)
	w.b = append(w.b, `,"offset":`...)
	w.b = strconv.AppendInt(w.b, m.Offset, 10)
	w.int(`"time":`, m.Time)
	w.base64(`"key":`, m.Key)
	w.raw(`"value":`, m.Value)
	w.base64(`"bytes":`, m.Bytes)
	w.headers(m.Headers)
	w.b = append(w.b, '}')
}

func (w *writer) headers(list []Header) {
	if len(list) == 0 {
		return
	}
	w.key(`"headers":`)
	for i := range list {
		w.b = append(append(w.b, separator(i)), `{"key":`...)
		w.b = appendString(w.b, list[i].Key)
		w.b = append(w.b, `,"value":`...)
		w.base64Value(list[i].Value)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

func (w *writer) record(r *Record) {
	w.b = append(w.b, `{"topic":`...)
	w.b = appendString(w.b, r.Topic)
	w.int(`"partition":`, int64(r.Partition))
	w.int(`"offset":`, r.Offset)
	w.time(`"time":`, r.Time)
	w.base64(`"key":`, r.Key)
	w.base64(`"value":`, r.Value)
	w.headers(r.Headers)
	w.b = append(w.b, '}')
}

func (w *writer) source(s *Source) {
	w.string(`"topicId":`, s.TopicID)
	w.key(`"partition":`)
	w.b = strconv.AppendInt(w.b, int64(s.Partition), 10)
	w.string(`"key":`, s.Key)
}

func (w *writer) mark(k string, m *Mark) {
	if m == nil {
		return
	}
	w.key(k)
	w.b = append(w.b, `{"pos":`...)
	w.b = strconv.AppendInt(w.b, m.Pos, 10)
	w.int(`"index":`, int64(m.Index))
	w.b = append(w.b, '}')
}

func (w *writer) position(p *Position) {
	w.b = append(w.b, '{')
	w.string(`"topicId":`, p.TopicID)
	w.key(`"offset":`)
	w.b = strconv.AppendInt(w.b, p.Offset, 10)
	w.int(`"term":`, int64(p.Term))
	w.uint(`"forwarded":`, p.Forwarded)
	if len(p.Sources) > 0 {
		w.key(`"sources":`)
		for i := range p.Sources {
			s := &p.Sources[i]
			w.b = append(append(w.b, separator(i)), '{')
			w.source(&s.Source)
			w.b = append(w.b, `,"pos":`...)
			w.b = strconv.AppendInt(w.b, s.Pos, 10)
			w.int(`"index":`, int64(s.Index))
			w.bool(`"delivery":`, s.Delivery)
			w.b = append(w.b, '}')
		}
		w.b = append(w.b, ']')
	}
	if len(p.Refused) > 0 {
		w.key(`"refused":`)
		for i := range p.Refused {
			r := &p.Refused[i]
			w.b = append(append(w.b, separator(i)), `{"id":`...)
			w.b = appendString(w.b, r.ID)
			w.b = append(w.b, `,"request":`...)
			w.b = appendString(w.b, r.Request)
			w.int(`"made":`, r.Made)
			w.b = append(w.b, `,"answer":`...)
			w.b = appendString(w.b, r.Answer)
			w.uint(`"prev":`, r.Prev)
			w.b = append(w.b, '}')
		}
		w.b = append(w.b, ']')
	}
	w.b = append(w.b, '}')
}
