package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

const day = 24 * time.Hour

// span is a duration as people write cryptoperiods: 90d, 1y, 12h30m; 0 for none. A year has 365 days.
type span time.Duration

// String implements pflag.Value; whole days are days.
func (s *span) String() string {
	d := time.Duration(*s)
	if d != 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	*s = span(d)
	return err
}

// Type implements pflag.Value.
func (s *span) Type() string { return "duration" }

// UnmarshalText reads a span from a file.
func (s *span) UnmarshalText(text []byte) error { return s.Set(string(text)) }

func parseSpan(text string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": day, "y": 365 * day} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || time.Duration(n) > 200*365*day/length { // the limit is 100 years
			return 0, fmt.Errorf("%q is not a duration like 90d, 1y or 12h", text)
		}
		return time.Duration(n) * length, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration like 90d, 1y or 12h", text)
	}
	return d, nil
}

// message is nil for none.
func (s *span) message() *durationpb.Duration {
	if *s == 0 {
		return nil
	}
	return durationpb.New(time.Duration(*s))
}
