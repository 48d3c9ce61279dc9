package redis

import (
	"fmt"
	"strings"
)

// loginHint says beside an error about a login where the URL has it. It never shows a password.
func (o *Options) loginHint(err error) error {
	if err == nil {
		return nil
	}
	shown := *o
	shown.Username = ""
	scheme, rest, _ := strings.Cut(shown.url(), "://")
	where := fmt.Sprintf("%s://USER:PASSWORD@%s, with what is no letter or digit as %%2F and the like; or the password in a file that password_file= names", scheme, rest)
	user := "the user default"
	if o.Username != "" {
		user = fmt.Sprintf("the user %q", o.Username)
	}
	var hints []string
	said := err.Error()
	switch {
	case strings.Contains(said, "NOAUTH"):
		hints = append(hints, "the server wants a login: it belongs into the URL as "+where+"; without USER it is that of default")
	case strings.Contains(said, "WRONGPASS"):
		hints = append(hints, "the server does not know "+user+" with this password, or has switched it off: user and password are those of the URL, "+where)
	case strings.Contains(said, "NOPERM"):
		hints = append(hints, user+" lacks a right that is named above; the user is that of the URL, "+where)
	}
	if len(hints) > 0 && o.Mode == Sentinel {
		hints = append(hints, "those of the Sentinels themselves are sentinel_user= and sentinel_password_file=")
	}
	if len(hints) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(hints, "; "))
}
