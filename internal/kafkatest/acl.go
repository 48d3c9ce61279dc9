package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ACL allows one operation on what has a name, or on all that begins with it.
type ACL struct {
	Resource  kmsg.ACLResourceType
	Name      string
	Prefixed  bool
	Operation kmsg.ACLOperation
}

func (a ACL) String() string {
	kind := strings.ToLower(strings.ReplaceAll(a.Resource.String(), "_", " "))
	if a.Prefixed {
		return fmt.Sprintf("%s on %s %s*", a.Operation, kind, a.Name)
	}
	return fmt.Sprintf("%s on %s %s", a.Operation, kind, a.Name)
}

func (a ACL) pattern() kmsg.ACLResourcePatternType {
	if a.Prefixed {
		return kmsg.ACLResourcePatternTypePrefixed
	}
	return kmsg.ACLResourcePatternTypeLiteral
}

var aclLine = regexp.MustCompile(`(?m)^ +acl (--.*)$`)

// DocumentedACLs are those of the lines "acl --…" of a page, which give kafka-acls.sh's
// arguments.
func DocumentedACLs(file string) (acls []ACL, err error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ACLs: %w", err)
	}
	text := strings.ReplaceAll(string(page), "\\\n", " ")
	for _, line := range aclLine.FindAllStringSubmatch(text, -1) {
		var a ACL
		var operations []kmsg.ACLOperation
		words := strings.Fields(line[1])
		for i := 0; i+1 < len(words); i += 2 {
			switch flag, value := words[i], words[i+1]; flag {
			case "--resource-pattern-type":
				a.Prefixed = value == "prefixed"
			case "--topic":
				a.Resource, a.Name = kmsg.ACLResourceTypeTopic, value
			case "--group":
				a.Resource, a.Name = kmsg.ACLResourceTypeGroup, value
			case "--transactional-id":
				a.Resource, a.Name = kmsg.ACLResourceTypeTransactionalId, value
			case "--operation":
				op, err := kmsg.ParseACLOperation(value)
				if err != nil {
					return nil, fmt.Errorf("read ACLs of %s: %w", file, err)
				}
				operations = append(operations, op)
			default:
				return nil, fmt.Errorf("read ACLs of %s: %s is not known here", file, flag)
			}
		}
		for _, a.Operation = range operations {
			acls = append(acls, a)
		}
	}
	if len(acls) == 0 {
		return nil, fmt.Errorf("read ACLs: %s has none", file)
	}
	return acls, nil
}

// SetACLs gives a user exactly these rights, and returns when they are in force.
func (b *Broker) SetACLs(ctx context.Context, user string, acls []ACL) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer cl.Close()
	principal, host := "User:"+user, "*"
	drop := kmsg.NewPtrDeleteACLsRequest()
	drop.Filters = []kmsg.DeleteACLsRequestFilter{{
		ResourceType: kmsg.ACLResourceTypeAny, ResourcePatternType: kmsg.ACLResourcePatternTypeAny, Principal: &principal,
		Operation: kmsg.ACLOperationAny, PermissionType: kmsg.ACLPermissionTypeAny,
	}}
	if _, err := drop.RequestWith(ctx, cl); err != nil {
		return fmt.Errorf("delete ACLs: %w", err)
	}
	create := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		create.Creations = append(create.Creations, kmsg.CreateACLsRequestCreation{
			ResourceType: a.Resource, ResourceName: a.Name, ResourcePatternType: a.pattern(), Principal: principal, Host: host,
			Operation: a.Operation, PermissionType: kmsg.ACLPermissionTypeAllow,
		})
	}
	resp, err := create.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("create ACLs: %w", err)
	}
	for _, r := range resp.Results {
		err = errors.Join(err, kerr.ErrorForCode(r.ErrorCode))
	}
	if err != nil {
		return fmt.Errorf("create ACLs: %w", err)
	}
	look := kmsg.NewPtrDescribeACLsRequest()
	look.ResourceType, look.ResourcePatternType, look.Principal = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, &principal
	look.Operation, look.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	for ctx.Err() == nil {
		resp, err := look.RequestWith(ctx, cl)
		if err != nil {
			return fmt.Errorf("describe ACLs: %w", err)
		}
		n := 0
		for _, r := range resp.Resources {
			n += len(r.ACLs)
		}
		if n == len(acls) {
			return nil
		}
	}
	return fmt.Errorf("describe ACLs: %w", context.Cause(ctx))
}
