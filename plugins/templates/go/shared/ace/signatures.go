// Package ace has small helpers over the bindings in gen.
package ace

import (
	"errors"

	signatures "ace_plugin/gen/imports/openedx_ace_signatures"
	"go.bytecodealliance.org/pkg/wit/types"
)

// Verify tells whether signature is a signature of data by a key of a credential, whose name is the plugin's own. The algorithms are
// "hmac-sha1", "hmac-sha256", "hmac-sha512", "ecdsa-p256-sha256", "rsa-pkcs1-sha1", "rsa-pkcs1-sha256" and "ed25519". The error
// says why it cannot be verified.
func Verify(credential, algorithm string, data, signature []byte) (bool, error) {
	return verified(signatures.Verify(credential, algorithm, data, signature))
}

// VerifyWith does the same with a public key: SubjectPublicKeyInfo or an X.509 certificate, both in DER.
func VerifyWith(key []byte, algorithm string, data, signature []byte) (bool, error) {
	return verified(signatures.VerifyWith(key, algorithm, data, signature))
}

func verified(answer wit_types.Result[bool, signatures.SignatureError]) (bool, error) {
	if answer.IsOk() {
		return answer.Ok(), nil
	}
	switch why := answer.Err(); why.Tag() {
	case signatures.SignatureError_Denied:
		return false, errors.New("signatures: " + why.Denied())
	default:
		return false, errors.New("signatures: " + why.Invalid())
	}
}
