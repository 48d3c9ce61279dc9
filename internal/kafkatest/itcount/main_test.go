package main

import (
	"io"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want counts
	}{
		"leaves": {`
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"skip","Package":"p","Test":"TestA/y"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestAB"}
{"Action":"pass","Package":"p"}`, counts{pass: 2, skip: 1}},
		"failed below": {`
{"Action":"fail","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, counts{fail: 1}},
		"failed beside": {`
{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, counts{pass: 1, fail: 1}},
		"did not build": {`
{"ImportPath":"p","Action":"build-output","Output":"x.go:1: wrong\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p"}`, counts{fail: 1}},
		"nothing": {``, counts{}},
		"no tests": {`
{"Action":"skip","Package":"p"}`, counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := count(strings.NewReader(tt.in), io.Discard, false)
			if err != nil || got != tt.want {
				t.Errorf("counted %+v, %v, not %+v", got, err, tt.want)
			}
		})
	}
}
