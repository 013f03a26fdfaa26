// Verifies a log of ours with the Go authors' own packages note and tlog, as they come inside the Go distribution.
//
// Usage: checker DIRECTORY VKEY [COSIGNER VKEY...] < claims.json
//
// It opens the checkpoint, which all these keys must have signed (cosignatures as c2sp.org/tlog-cosignature says), reads the root and every leaf hash through the tiles (tlog authenticates each tile by the
// root), hashes every leaf of the entry bundles, makes and checks proofs of its own, and checks ours from the claims.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/mldsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"checker/note"
	"checker/tlog"
)

type inclusion struct {
	Index int64
	Path  tlog.RecordProof
}

type consistency struct {
	Old   int64
	Root  tlog.Hash
	Proof tlog.TreeProof
}

type claims struct {
	Inclusion   []inclusion
	Consistency []consistency
}

func check(err error, what string) {
	if err != nil {
		fmt.Println(what+":", err)
		os.Exit(1)
	}
}

func require(holds bool, what string) {
	if !holds {
		check(fmt.Errorf("it does not hold"), what)
	}
}

// tiles reads what c2sp.org/tlog-tiles calls tile/<L>/<N>; in the paths of package tlog the height stands before L.
type tiles string

func (tiles) Height() int                     { return 8 }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) path(tile tlog.Tile, as string) string {
	name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return filepath.Join(string(t), strings.Replace(name, "tile/data/", "tile/"+as+"/", 1))
}

func (t tiles) ReadTiles(wanted []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range wanted {
		found, err := os.ReadFile(t.path(tile, ""))
		if err != nil {
			return nil, err
		}
		data = append(data, found)
	}
	return data, nil
}

// leaves returns the leaf hashes of one entry bundle.
func (t tiles) leaves(index, size int64) (hashes []tlog.Hash) {
	tile := tlog.Tile{H: 8, L: -1, N: index, W: int(min(256, size-index*256))}
	data, err := os.ReadFile(t.path(tile, "entries"))
	check(err, "bundle")
	for len(data) > 0 {
		length := int(binary.BigEndian.Uint16(data))
		hashes = append(hashes, tlog.RecordHash(data[2:2+length]))
		data = data[2+length:]
	}
	require(len(hashes) == tile.W, "the width of a bundle")
	return hashes
}

// cosigner is the key of a witness: type 0x04, Ed25519, or 0x06, ML-DSA-44.
type cosigner struct {
	name string
	hash uint32
	key  []byte
}

func newCosigner(vkey string) cosigner {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	id, err := strconv.ParseUint(hash, 16, 32)
	check(err, "id of a cosigner")
	key, err := base64.StdEncoding.DecodeString(encoded)
	check(err, "key of a cosigner")
	return cosigner{name, uint32(id), key}
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	time, signature, key := sig[:8], sig[8:], c.key[1:]
	if c.key[0] == 4 {
		text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(time), msg)
		return ed25519.Verify(key, []byte(text), signature)
	}
	lines := strings.Split(string(msg), "\n")
	size, err := strconv.ParseUint(lines[1], 10, 64)
	check(err, "size")
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err, "root")
	text := bytes.Join([][]byte{
		[]byte("subtree/v1\n\x00"), {byte(len(c.name))}, []byte(c.name), time, {byte(len(lines[0]))}, []byte(lines[0]),
		make([]byte, 8), binary.BigEndian.AppendUint64(nil, size), root,
	}, nil)
	public, err := mldsa.NewPublicKey(mldsa.MLDSA44(), key)
	check(err, "key of a cosigner")
	return mldsa.Verify(public, text, signature, nil) == nil
}

func opened(dir, vkey string, cosigners []string) tlog.Tree {
	verifier, err := note.NewVerifier(vkey)
	check(err, "vkey")
	verifiers := []note.Verifier{verifier}
	for _, vkey := range cosigners {
		verifiers = append(verifiers, newCosigner(vkey))
	}
	message, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err, "checkpoint")
	signed, err := note.Open(message, note.VerifierList(verifiers...))
	check(err, "signature")
	require(len(signed.Sigs) == len(verifiers), "who signed")
	lines := strings.Split(signed.Text, "\n")
	require(len(lines) == 4 && lines[0] == verifier.Name(), "the origin")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "size")
	root, err := tlog.ParseHash(lines[2])
	check(err, "root")
	return tlog.Tree{N: size, Hash: root}
}

func main() {
	dir, tree := tiles(os.Args[1]), opened(os.Args[1], os.Args[2], os.Args[3:])
	var claimed claims
	check(json.NewDecoder(os.Stdin).Decode(&claimed), "claims")
	reader := tlog.TileHashReader(tree, dir)
	indexes := make([]int64, tree.N)
	for n := range indexes {
		indexes[n] = tlog.StoredHashIndex(0, int64(n))
	}
	hashes, err := reader.ReadHashes(indexes)
	check(err, "tiles")
	for n := int64(0); n < tree.N; n += 256 {
		for at, hash := range dir.leaves(n/256, tree.N) {
			require(bytes.Equal(hash[:], hashes[n+int64(at)][:]), fmt.Sprint("leaf ", n+int64(at)))
		}
	}
	for _, one := range claimed.Inclusion {
		own, err := tlog.ProveRecord(tree.N, one.Index, reader)
		check(err, "prove inclusion")
		for _, proof := range []tlog.RecordProof{own, one.Path} {
			check(tlog.CheckRecord(proof, tree.N, tree.Hash, one.Index, hashes[one.Index]), "inclusion")
		}
	}
	for _, one := range claimed.Consistency {
		root, err := tlog.TreeHash(one.Old, reader)
		check(err, "old root")
		require(root == one.Root, "the old root")
		own, err := tlog.ProveTree(tree.N, one.Old, reader)
		check(err, "prove consistency")
		for _, proof := range []tlog.TreeProof{own, one.Proof} {
			check(tlog.CheckTree(proof, tree.N, tree.Hash, one.Old, root), "consistency")
		}
	}
	fmt.Println("verified", tree.N, tree.Hash, len(claimed.Inclusion), len(claimed.Consistency))
}
