package client

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Sparse encodes a struct as JSON without its zero fields, at any depth. To a Go decoder the result means
// the same; it is shorter, and spares a program that lives for milliseconds the making of encoders for
// hundreds of fields that it does not use.
type Sparse struct{ Value any }

// MarshalJSON implements json.Marshaler.
func (s Sparse) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := writeSparse(&b, reflect.ValueOf(s.Value))
	return b.Bytes(), err
}

var marshaler = reflect.TypeFor[json.Marshaler]()

func writeSparse(b *bytes.Buffer, v reflect.Value) error {
	for v.Kind() == reflect.Pointer && !v.IsNil() && !v.Type().Implements(marshaler) {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || v.Type().Implements(marshaler) {
		text, err := json.Marshal(v.Interface())
		b.Write(text)
		return err
	}
	b.WriteByte('{')
	err := writeFields(b, v)
	b.WriteByte('}')
	return err
}

func writeFields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		kind, field := v.Type().Field(i), v.Field(i)
		name, _, _ := strings.Cut(kind.Tag.Get("json"), ",")
		if name == "-" || field.IsZero() || !kind.IsExported() {
			continue
		}
		if kind.Anonymous && name == "" && reflect.Indirect(field).Kind() == reflect.Struct {
			if err := writeFields(b, reflect.Indirect(field)); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			name = kind.Name
		}
		if b.Bytes()[b.Len()-1] != '{' {
			b.WriteByte(',')
		}
		b.WriteString(`"` + name + `":`)
		if err := writeSparse(b, field); err != nil {
			return err
		}
	}
	return nil
}
