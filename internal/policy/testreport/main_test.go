package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	const in = `{"Action":"start","Package":"p/a"}
{"Action":"run","Package":"p/a","Test":"TestGood"}
{"Action":"output","Package":"p/a","Test":"TestGood","Output":"noise\n"}
{"Action":"pass","Package":"p/a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"p/a","Test":"TestBroker","Output":"    a_test.go:12: needs KAFKA_BROKERS\n"}
{"Action":"output","Package":"p/a","Test":"TestBroker","Output":"--- SKIP: TestBroker (0.00s)\n"}
{"Action":"skip","Package":"p/a","Test":"TestBroker"}
{"Action":"output","Package":"p/a","Output":"PASS\n"}
{"Action":"pass","Package":"p/a","Elapsed":1.26}
{"Action":"skip","Package":"p/empty"}
{"Action":"output","Package":"p/b","Test":"TestBad","Output":"    b_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"p/b","Test":"TestBad","Elapsed":0.5}
{"Action":"output","Package":"p/b","Test":"TestPanics","Output":"panic: boom\n"}
{"Action":"fail","Package":"p/b","Elapsed":2}
{"ImportPath":"p/c","Action":"build-output","Output":"c.go:3: undefined: x\n"}
{"Action":"fail","Package":"p/c","Elapsed":0,"FailedBuild":"p/c"}
go: not a test result
`
	const want = `ok   p/a 1.3s
    b_test.go:7: got 1, want 2
panic: boom
FAIL p/b 2.0s
c.go:3: undefined: x
FAIL p/c 0.0s
go: not a test result
skipped 1: needs KAFKA_BROKERS (TestBroker)
`
	var out strings.Builder
	if err := report(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
