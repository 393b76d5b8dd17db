package ace

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// FromJson reads JSON from outside, such as the body of a request. The error says that it is not JSON in UTF-8; half of a surrogate
// pair, a number that a float64 cannot hold, and more than 127 nested lists and objects are not accepted. It reads into an any, because
// the fields of a struct match keys in any case.
func FromJson(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	if err := checkJson(string(text)); err != nil {
		return nil, err
	}
	var value any
	err := json.Unmarshal(text, &value)
	return value, err
}

// checkJson refuses what encoding/json changes, and what it cannot read with the stack of a plugin.
func checkJson(text string) error {
	depth, isText := 0, false
	for at := 0; at < len(text); at++ {
		switch c := text[at]; {
		case c == '"':
			isText = !isText
		case isText && c == '\\':
			first, second := escaped(text[at:]), escaped(text[min(at+6, len(text)):])
			if utf16.DecodeRune(first, second) != utf8.RuneError {
				at += 6
			} else if utf16.IsSurrogate(first) {
				return errors.New("half of a surrogate pair")
			}
			at++
		case !isText && (c == '[' || c == '{'):
			depth++
		case !isText && (c == ']' || c == '}'):
			depth--
		}
		if depth > 127 {
			return errors.New("too many nested lists and objects")
		}
	}
	return nil
}

// escaped returns the number of an escape such as \u00e9; 0 if there is none.
func escaped(text string) rune {
	if len(text) < 6 || text[:2] != `\u` {
		return 0
	}
	number, _ := strconv.ParseUint(text[2:6], 16, 16)
	return rune(number)
}

// IsTrue tells whether Python would call a JSON value true, as edx-ace does with options: not null, false, 0, nor an empty text, list
// or object.
func IsTrue(value string) bool {
	switch value {
	case "", "null", "false", `""`, "[]", "{}":
		return false
	}
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return true
	}
	// A zero has no other digit before its exponent.
	digits, _, _ := strings.Cut(strings.ToLower(value), "e")
	return strings.ContainsAny(digits, "123456789")
}
