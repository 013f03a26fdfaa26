"""Keys, signatures, sealing, Merkle trees and X.509. The only importer of `cryptography`."""
