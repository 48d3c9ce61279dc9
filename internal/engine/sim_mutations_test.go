package engine

import "reflect"

// simMutations are the rules that can be left out, by name.
func simMutations() map[string]func(*simRules) {
	all := map[string]func(*simRules){
		"noFence": func(r *simRules) { r.noFence = true },
		"relayOn": func(r *simRules) { r.relayOn = true },
		"direct":  func(r *simRules) { r.direct = true },
		"noCAS":   func(r *simRules) { r.noCAS = true },
		"noPool":  func(r *simRules) { r.noPool = true },
	}
	var r simRules
	for k := range reflect.TypeOf(r.machine).NumField() {
		if f := reflect.TypeOf(r.machine).Field(k); f.Type.Kind() == reflect.Bool {
			all[f.Name] = func(r *simRules) { reflect.ValueOf(&r.machine).Elem().Field(k).SetBool(true) }
		}
	}
	v := reflect.TypeOf(r.owner)
	for k := range v.NumField() {
		name := v.Field(k).Name
		all[name] = func(r *simRules) { setOwnerRule(&r.owner, name) }
	}
	return all
}

// setOwnerRule switches a rule of the owner off; its fields are not exported, so that
// reflection can't.
func setOwnerRule(r *ownerRules, name string) {
	switch name {
	case "recoverFirst":
		r.recoverFirst = true
	case "unknownIsAbort":
		r.unknownIsAbort = true
	case "effectsEarly":
		r.effectsEarly = true
	case "foldedForward":
		r.foldedForward = true
	case "marksFromStore":
		r.marksFromStore = true
	case "staleReads":
		r.staleReads = true
	case "evictDirty":
		r.evictDirty = true
	case "interruptEarly":
		r.interruptEarly = true
	case "projectFrozen":
		r.projectFrozen = true
	default:
		panic("no such rule: " + name)
	}
}
