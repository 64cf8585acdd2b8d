package meta

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
)

// Algorithms of password hashes, by their names in RabbitMQ's definition files.
const (
	HashSHA256 = "rabbit_password_hashing_sha256"
	HashSHA512 = "rabbit_password_hashing_sha512"
)

// saltBytes is the length of the salt in front of RabbitMQ's hashes.
const saltBytes = 4

// HashPassword hashes a password with HashSHA256, in the form of RabbitMQ's
// definition files: base64(salt ‖ sha256(salt ‖ password)).
func HashPassword(salt [saltBytes]byte, password string) string {
	h := sha256.Sum256(append(salt[:], password...))
	return base64.StdEncoding.EncodeToString(append(salt[:], h[:]...))
}

// CheckPassword reports whether password is the user's.
func (u *User) CheckPassword(password string) bool {
	hash, err := base64.StdEncoding.DecodeString(u.PasswordHash)
	if err != nil || len(hash) <= saltBytes {
		return false
	}
	salted := append(bytes.Clone(hash[:saltBytes]), password...)
	var want []byte
	switch u.Algorithm {
	case "", HashSHA256:
		sum := sha256.Sum256(salted)
		want = sum[:]
	case HashSHA512:
		sum := sha512.Sum512(salted)
		want = sum[:]
	}
	return len(want) > 0 && subtle.ConstantTimeCompare(hash[saltBytes:], want) == 1
}
