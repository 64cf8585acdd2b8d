package cluster

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

var errOtherSecret = errors.New("the peer's certificate does not come from this node's cluster secret")

// derive makes 32 bytes of key from the cluster secret for one purpose.
func derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, []byte("warren cluster secret v1"), purpose, 32)
}

// gossipKey is memberlist's AES-256 key, or nil without a secret.
func gossipKey(secret []byte) ([]byte, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	return derive(secret, "gossip key")
}

// credentials are this node's half of mutual TLS. Every node derives the same
// CA key from the secret and signs its own certificate with it, so there is
// nothing to hand out, and who knows the secret is who may speak.
type credentials struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// newCredentials signs a certificate for node id, or returns nil without a secret.
func newCredentials(secret []byte, id string) (*credentials, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	seed, err := derive(secret, "certificate authority key")
	if err != nil {
		return nil, fmt.Errorf("derive certificate authority: %w", err)
	}
	authority := ed25519.NewKeyFromSeed(seed)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "warren cluster"},
		// Clocks may be wrong; the secret is what counts, not a date.
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, authority.Public(), authority)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "warren node " + id},
		DNSNames:     []string{id},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, public, authority)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	c := &credentials{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots: x509.NewCertPool()}
	c.roots.AddCert(ca)
	return c, nil
}

func (c *credentials) config() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{c.cert},
		ClientAuth:   tls.RequireAnyClientCert,
		// The names are node ids, not hosts, and are not always known before the
		// handshake: verify does all the checking, on both sides.
		InsecureSkipVerify:     true,
		VerifyConnection:       func(s tls.ConnectionState) error { return c.verify(s) },
		SessionTicketsDisabled: true,
	}
}

func (c *credentials) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errOtherSecret
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots:     c.roots,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherSecret, err)
	}
	return nil
}

// certifies reports whether the certificate of the other end is id's.
func certifies(s tls.ConnectionState, id string) bool {
	return len(s.PeerCertificates) > 0 && slices.Contains(s.PeerCertificates[0].DNSNames, id)
}
